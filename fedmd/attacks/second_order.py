"""Convolutions and batch norm in eval mode whose gradients are cheap to differentiate once more.

PyTorch differentiates a convolution's gradients by convolutions that swap samples and channels, for which CPU libraries
have no fast kernel, and batch norm's by a chain of some twenty passes over the batch. Both have short formulas. With z
= x ∗ w, its gradients (gx, gw) = (g ∗ᵀ w, x ⋆ g), and their cotangents (u, s),

    ḡ = u ∗ w + x ∗ s,    x̄ = g ∗ᵀ s,    w̄ = u ⋆ g,

a convolution, or a convolution's own gradient, each. With y = γ x̂ + β, x̂ = r (x − m), its gradients (gx, gγ, gβ) =
(γ r g, Σ g x̂, Σ g), and their cotangents (u, s, b),

    ḡ = γ r u + s x̂ + b,    x̄ = r s g,    γ̄ = r Σ u g.

Outputs and gradients are PyTorch's own, bit for bit; second derivatives are so up to the order of summation.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
Wanted = tuple[bool, bool, bool]  # by samples, weights, bias


class Geometry(NamedTuple):
    """What a convolution is besides its tensors, and which second derivatives will be asked for."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    by_weights: bool
    valued: bool


class TwiceDifferentiable(TorchFunctionMode):
    """Within it, 2-d convolutions and batch norm with fixed statistics of a model are those of this module.

    Args:
        by_weights: whether gradients will be differentiated by the weights, too, or by the samples alone: autograd
            does not tell a `Function` what of it is asked for, and a convolution's weights are a third of the work.
        valued: False leaves the gradients of convolutions' weights 0, for whoever has had them and wants only to
            differentiate them: their second derivatives are what they would be.
    """

    def __init__(self, *, by_weights: bool = True, valued: bool = True) -> None:
        super().__init__()
        self._by_weights, self._valued = by_weights, valued

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """`func`, or what stands for it here."""
        out, kwargs = NotImplemented, kwargs or {}
        if func is torch.conv2d:
            out = conv2d(*args, **kwargs, by_weights=self._by_weights, valued=self._valued)
        elif func is F.batch_norm:
            out = batch_norm(*args, **kwargs)
        return func(*args, **kwargs) if out is NotImplemented else out


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    by_weights: bool = True,
    valued: bool = True,
) -> Any:
    """`torch.conv2d`; NotImplemented for what it does not cover: one sample without its axis, padding by name."""
    if x.dim() != 4 or isinstance(padding, str):
        return NotImplemented
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups, by_weights, valued)
    return _Convolution.apply(x, weight, bias, geometry)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """`F.batch_norm`; NotImplemented in training, without running statistics or without weights."""
    if training or running_mean is None or running_var is None or weight is None or bias is None:
        return NotImplemented
    return _BatchNorm.apply(x, weight, bias, running_mean, running_var, eps)


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return _convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            wanted = of_x, of_weight, of_bias
            return *_ConvolutionGradients.apply(g, x, weight, ctx.geometry, wanted), None
        by_weights = ctx.geometry.by_weights  # this is the second derivative already
        return *_gradients(g, x, weight, ctx.geometry, (of_x, of_weight and by_weights, of_bias and by_weights)), None


class _ConvolutionGradients(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: Wanted) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, weight)
        ctx.geometry = geometry
        if geometry.valued:
            return _gradients(g, x, weight, geometry, wanted)
        of_x, _, of_bias = _gradients(g, x, weight, geometry, (wanted[0], False, wanted[2]))
        return of_x, weight.new_zeros(()).expand_as(weight) if wanted[1] else None, of_bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor | None, s: Tensor | None, b: Tensor | None) -> Any:
        (g, x, weight), geometry, needed = ctx.saved_tensors, ctx.geometry, ctx.needs_input_grad
        of_g = of_x = of_weight = None
        if needed[0]:
            for samples, kernel in ((u, weight), (x, s)):
                if samples is not None and kernel is not None:
                    part = _convolve(samples, kernel, None, geometry)
                    of_g = part if of_g is None else of_g.add_(part)
            if b is not None:
                spread = b[:, None, None]
                of_g = spread.expand_as(g) if of_g is None else of_g.add_(spread)
        if needed[1] and s is not None:
            of_x = _gradients(g, x, s, geometry, (True, False, False))[0]
        if needed[2] and u is not None and geometry.by_weights:
            of_weight = _gradients(g, u, weight, geometry, (False, True, False))[1]
        return of_g, of_x, of_weight, None, None


class _BatchNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return *_BatchNormGradients.apply(g, *ctx.saved_tensors, ctx.eps), None, None, None


class _BatchNormGradients(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, weight, mean, variance)
        ctx.eps = eps
        return aten.native_batch_norm_backward(g, x, weight, mean, variance, None, None, False, eps, [True, True, True])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor | None, s: Tensor | None, b: Tensor | None) -> Any:
        g, x, weight, mean, variance = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()  # r

        def per_channel(values: Tensor) -> Tensor:
            return values.to(x.dtype).view(-1, *[1] * (x.dim() - 2))

        of_g = of_x = of_weight = None
        if s is not None:
            constant = -scale * mean * s if b is None else b - scale * mean * s
            of_g = torch.addcmul(per_channel(constant), x, per_channel(scale * s))
            of_x = g * per_channel(scale * s)
        elif b is not None:
            of_g = per_channel(b).expand_as(g)
        if u is not None:
            moved = per_channel(scale * weight)
            of_g = u * moved if of_g is None else torch.addcmul(of_g, u, moved)
            of_weight = scale * (u * g).sum([n for n in range(x.dim()) if n != 1])
        return of_g, of_x, of_weight, None, None, None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups, *_ = geometry
    out: Tensor = aten.convolution(x, weight, bias, stride, padding, dilation, False, (0, 0), groups)
    return out


def _gradients(g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: Wanted) -> Any:
    stride, padding, dilation, groups, *_ = geometry
    return aten.convolution_backward(
        g, x, weight, (len(weight),), stride, padding, dilation, False, (0, 0), groups, wanted
    )
