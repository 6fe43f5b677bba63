"""The accumulative attack in update space, eq (4) after [AP21]: what the colluders send, with either kind of trigger.

reversed, the published code's; the trigger round is ascent on the trigger batch:

    accumulative round:   Δ = Δ_honest − η λ ∇_θ S,   S = cos(−g_tri, g_val),   ‖∇_θ S‖ clipped at 10
    trigger round:        Δ = Δ_honest + η' g_tri

clean, the paper's; the trigger round is an ordinary step on a clean batch, as an honest client would send it:

    accumulative round:   Δ = −η λ ∇_θ S,   S = cos(g_tri, g_val),   ‖∇_θ S‖ clipped at 10
    trigger round:        Δ = β Δ_tri,   Δ_tri what local training on the trigger batch makes of θ_t, β = 1

g are gradients of the batch-mean cross-entropy, all parameters flattened into one vector, with the model in train
mode. Lowering S turns the trigger round's step uphill on the validation loss. A clean trigger has no honest part: an
honest step from the model that is being steered would spring the trap before its time.

Where we differ: the published code moves one model by −λ ∇S and +0.01 g_tri, λ = 0.08, without clients or an
honest gradient. Ours is a client's update (an extension): η and η' / 0.01 are the attack's strength, 1 by default,
and the sum is no longer than an honest update (`bounded`). Of train mode we take what makes gradients differ, batch
norm by the batch's own statistics; dropout stays off, so that a push is a function of its arguments.

[AP21] Pang et al., Accumulative Poisoning Attacks on Real-time Data, NeurIPS 2021.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedmd.attacks.gradients import Tensors, detached_parameters, folded, normalised, pull
from fedmd.training.evaluate import batch_normalising, evaluating

UpdateTrigger = Literal["clean", "reversed"]

GRADIENT_CLIP = 10.0


def accumulative_push(
    model: nn.Module,
    x_tri: Tensor,
    y_tri: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    *,
    rate: float = 0.08,
    trigger: UpdateTrigger = "reversed",
) -> tuple[Tensor, float]:
    """−λ ∇_θ S at θ_t = ``model``, ∇_θ S clipped: [d], parameters() flattened; and S. All colluders share one.

    With c = cos(g_tri, g_val), which is S or −S, ∇c = H_tri s_tri + H_val s_val: two Hessian-vector products with the
    fixed vectors of `folded`, taken of the whole vectors. Parameters, buffers and flags of the model stay as they are.

    Args:
        x_tri, y_tri: trigger batch [N, C, H, W] and labels [N]; clean samples, nothing is crafted in pixel space.
        x_val, y_val: the attacker's validation batch [M, C, H, W] and labels [M].
        rate: λ.
        trigger: which S.
    """
    parameters = detached_parameters(model)
    at_trigger = _gradient(model, parameters, x_tri, y_tri, create_graph=True)
    validation = _gradient(model, parameters, x_val, y_val, create_graph=True)
    g_tri, g_val = (_flat(at_trigger),), (_flat(validation),)
    s_tri, s_val = folded(g_tri, normalised(g_val))[0], folded(g_val, normalised(g_tri))[0]
    vectors = _split(s_tri, at_trigger) + _split(s_val, validation)
    uphill = _flat(pull(at_trigger + validation, vectors, tuple(parameters.values())))  # ∇c
    cosine = float(F.cosine_similarity(g_tri[0], g_val[0], dim=0))
    sign = 1 if trigger == "reversed" else -1
    return sign * rate * bounded(uphill, GRADIENT_CLIP), -sign * cosine


def trigger_push(model: nn.Module, x_tri: Tensor, y_tri: Tensor, *, rate: float = 0.01) -> Tensor:
    """η' g_tri at θ_t = ``model``: [d], parameters() flattened. Arguments as in `accumulative_push`; rate: η'."""
    return rate * _flat(_gradient(model, detached_parameters(model), x_tri, y_tri, create_graph=False))


def add_push(own: Tensor, push: Tensor, honest: Tensor, scale: float, norm_bound: float | None) -> Tensor:
    """Δ + η · push [d], shortened to ``norm_bound`` median norms of the ``honest`` updates [n, d]; None: as it is.

    Args:
        own: Δ, the honest update [d].
        scale: η.
    """
    update = own + scale * push
    if norm_bound is None:
        return update
    return bounded(update, norm_bound * float(torch.linalg.vector_norm(honest, dim=1).median()))


def unnoticed(push: Tensor, loss: Callable[[Tensor], float], limit: float, *, halvings: int = 6) -> Tensor:
    """The first of push, push / 2, ..., push / 2**halvings with ``loss`` at most ``limit`` [d]; zeros if there is none.

    Stealth by the attackers' own data: ``loss`` says what their validation loss would be after an update.
    """
    for _ in range(halvings + 1):
        if loss(push) <= limit:  # and never where it is no number
            return push
        push = push / 2
    return torch.zeros_like(push)


def bounded(update: Tensor, norm: float) -> Tensor:
    """``update`` if it is no longer than ``norm``, else shortened to that L2 norm, direction kept."""
    length = float(torch.linalg.vector_norm(update))
    return update * (norm / length) if length > norm else update


def _gradient(model: nn.Module, parameters: dict[str, Tensor], x: Tensor, y: Tensor, *, create_graph: bool) -> Tensors:
    """g(x) at ``parameters``, one tensor each. A single sample has no batch statistics: eval mode then."""
    copies = {name: buffer.clone() for name, buffer in model.named_buffers()}  # these take the running statistics
    mode = batch_normalising if len(x) > 1 else evaluating
    with mode(model), torch.enable_grad():
        loss = F.cross_entropy(functional_call(model, parameters | copies, (x.detach(),)), y.long())
        return torch.autograd.grad(loss, tuple(parameters.values()), create_graph=create_graph, materialize_grads=True)


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def _split(vector: Tensor, like: Tensors) -> Tensors:
    parts = torch.split(vector, [t.numel() for t in like])
    return tuple(part.view_as(t) for part, t in zip(parts, like, strict=True))
