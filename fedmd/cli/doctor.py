"""`fedmd doctor`: what this machine has for fedmd, and the command that mends what is missing."""

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

_NEEDED = ("fedmd", "flwr", "ray", "torch", "torchvision", "hydra-core", "numpy")
# Package -> what it is for, and how to get it.
_OPTIONAL = {
    "optuna": ("fedmd run -m hydra/sweeper=optuna", "pip install optuna"),
    "byzfl": ("strategy=byzfl", "pip install byzfl"),
    "tensorboard": ("runtime.tensorboard=true", "pip install tensorboard"),
    "mlflow": ("tracking=[mlflow]", "pip install mlflow"),
    "wandb": ("tracking=[wandb]", "pip install wandb"),
    "prometheus_client": ("observability.prometheus_port", "pip install prometheus-client"),
    "nbclient": ("the notebook without a browser", "pip install nbclient ipykernel"),
}
_PORTS = {9092: "fedmd deploy: nodes", 9093: "fedmd deploy: SuperLink", 39091: "flwr run: a local SuperLink"}
_LITTLE_MEMORY = 4 * 2**30  # bytes
_LITTLE_DISK = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `mend` says what to do, "" for nothing; without what is `needed` nothing runs."""

    what: str
    found: str
    mend: str = ""
    needed: bool = False


def doctor() -> int:
    """Exit code 1 where something is missing that nothing runs without."""
    findings = list(examine())
    for finding in findings:
        mark = "ok  " if not finding.mend else "MISS" if finding.needed else "-   "
        print(f"{mark}  {finding.what:<44}{finding.found}" + (f"; {finding.mend}" if finding.mend else ""), flush=True)
    missing = [finding for finding in findings if finding.needed and finding.mend]
    print("\nready" if not missing else f"\n{len(missing)} thing(s) that fedmd does not run without")
    return 1 if missing else 0


def examine() -> Iterator[Finding]:
    """Everything, one by one, as the slow ones take seconds."""
    good = sys.version_info >= (3, 11)
    yield Finding("Python", platform.python_version(), "" if good else "install Python 3.11 or newer", needed=True)
    for package in _NEEDED:
        try:
            yield Finding(package, version(package), needed=True)
        except PackageNotFoundError:
            yield Finding(package, "not installed", "pip install --editable . in a checkout", needed=True)
    yield from _machine()
    yield _gpu()
    yield _cache()
    for port, use in _PORTS.items():
        yield _port(port, use)
    for name, (use, mend) in _OPTIONAL.items():
        yield Finding(use, name if find_spec(name) else f"{name} is not installed", "" if find_spec(name) else mend)
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    nginx = shutil.which("nginx", path=path)
    mend = "" if nginx else "apt-get install nginx-light"
    yield Finding("fedmd deploy: the open port", nginx or "nginx is not installed", mend)
    yield _compose()


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", str(cores), "" if cores > 1 else "simulations run in one process")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    little = "choose a small net and runtime.workers=1" if memory < _LITTLE_MEMORY else ""
    yield Finding("memory", f"{memory / 2**30:.1f} GiB", little)
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("disk here", f"{free / 2**30:.1f} GiB free", "" if free > _LITTLE_DISK else "runs may fill it")
    shared = Path("/dev/shm")
    if shared.exists() and (size := shutil.disk_usage(shared).total) < 2**30:
        yield Finding("shared memory (Ray)", f"{size / 2**20:.0f} MiB", "in a container: docker run --shm-size=2g")


def _gpu() -> Finding:
    if find_spec("torch") is None:
        return Finding("GPU", "unknown without torch")
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple, by runtime.device=mps")
    built = torch.version.cuda
    found = "none" + (f" that this PyTorch (CUDA {built}) can use" if built else ", and PyTorch is built without CUDA")
    return Finding("GPU", found, "fine for cnn and resnet_small; a CUDA build from pytorch.org for more")


def _cache() -> Finding:
    from fedmd.config import ConfigError
    from fedmd.data.cache import default_cache_dir

    try:
        folder = default_cache_dir(None)
        probe = folder / f".doctor-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except (ConfigError, OSError) as error:
        return Finding("cache", str(error), "set FEDMD_CACHE to a folder that can be written", needed=True)
    return Finding("cache", str(folder))


def _compose() -> Finding:
    asked = ["docker", "compose", "version", "--short"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        told = None
    use = "fedmd deploy: compose.yaml"
    if told is not None and told.returncode == 0:
        return Finding(use, f"docker compose {told.stdout.strip()}")
    return Finding(use, "no docker compose", "see docs.docker.com/compose/install; systemd does the same")


def _port(port: int, use: str) -> Finding:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return Finding(use, f"port {port} is free")
    except OSError:
        return Finding(use, f"port {port} is taken", "something runs there already, or choose another port")
