"""Where and in which number format a model computes."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedmd.config import ConfigError, RuntimeConfig


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: this machine (or this build of PyTorch) has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, present in available.items() if present))
    if not available.get(name, False):
        present = ", ".join(kind for kind in available if available[kind])
        raise ConfigError(f"runtime.device: {name} is not available to PyTorch here; there is {present}.")
    return torch.device(name)


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Count numbers below 1.2e-38 (denormal in single precision) as 0 in this thread, and end as it was.

    A CPU takes several times longer for them, and a client may send weights of nothing else, or so small that they
    make such activations: hence not what comes is flushed, but what is computed. It is each thread's own setting, so
    PyTorch's helpers with more than one thread (runtime.threads) go on as before. A machine that cannot, does not.
    """
    was_on = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed what draws random numbers for a model on `device`, such as dropout.

    `torch.manual_seed` also notes down where it was called, for a GPU that nobody uses yet, at a millisecond a time.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@dataclass(frozen=True)
class Placement:
    """Device, number format of the forward pass (weights stay float32) and memory layout of a model."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    @classmethod
    def of(cls, runtime: RuntimeConfig) -> "Placement":
        """What the configuration asks for. Raises `ConfigError` where the device is absent."""
        return cls._on(resolve_device(runtime.device), runtime)

    @classmethod
    def of_client(cls, runtime: RuntimeConfig) -> "Placement":
        """Where a client works: on the CPU, unless clients are given a share of the GPUs."""
        return cls._on(resolve_device("auto" if runtime.client_gpus > 0 else "cpu"), runtime)

    @classmethod
    def _on(cls, device: torch.device, runtime: RuntimeConfig) -> "Placement":
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[runtime.precision]
        return cls(device, dtype, runtime.channels_last and device.type != "mps")

    def autocast(self) -> AbstractContextManager[object]:
        """Round a forward pass to `dtype`; does nothing for float32."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def place(self, model: nn.Module) -> nn.Module:
        """`model` itself, moved to the device and layout."""
        return model.to(self.device).to(memory_format=self._layout)

    def images(self, x: Tensor) -> Tensor:
        """`x` [N, C, H, W] on the device, in the layout; `x` itself where it is there already."""
        if self.device.type == "cuda" and not x.is_cuda:
            x = x.pin_memory()
        return x.to(self.device, memory_format=self._layout, non_blocking=True)

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.preserve_format


FLOAT32 = Placement()
