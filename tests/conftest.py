"""A small, complete configuration and a small image set that the rooms' tests share."""

import os
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from fedmd.config import RunConfig
from fedmd.types import ImageSet

# As `isolate_ray` does before Ray is imported, which here other tests may have done.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

# The same examples every time, and no clock: a loaded machine is no reason to fail.
settings.register_profile("fedmd", deadline=None, derandomize=True)
settings.load_profile("fedmd")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; what shares federations, or Flower's processes, in one worker, one after the other."""
    for item in items:
        if "integration" in item.path.parts and not item.get_closest_marker("xdist_group"):
            shares = "runs" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("runs" if shares else item.path.stem))
    items.sort(key=lambda item: "integration" not in item.path.parts and item.path.stem != "test_plugin_package")


BASE: dict[str, Any] = {
    "seed": 0,
    "data": {
        "name": "digits",
        "splits": {"burn_in": 60, "trusted": 20, "attacker": 20, "test": 30},
        "partition": {"name": "iid"},
    },
    "model": {"name": "resnet_small", "width": 4},
    "training": {
        "burn_in": {
            "epochs": 2,
            "batch_size": 16,
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "batchnorm": "running",
        },
        "online": {"lr": 0.02, "momentum": 0.9, "batchnorm": "train"},
    },
    "stream": {
        "source": "fresh",
        "batch_size": 4,
        "clean_rounds": 2,
        "accumulative_rounds": 2,
        "trigger_rounds": 1,
        "recovery_rounds": 1,
    },
    "attack": {"name": "none"},
    "defense": {"name": "none"},
    "threshold": {"name": "quantile"},
    "history": {"name": "snapshot"},
    "federation": {"clients": 5},
    "runtime": {"device": "cpu", "precision": "fp32", "channels_last": False, "threads": 1},
}


@pytest.fixture
def make_config(tmp_path: Any) -> Callable[..., RunConfig]:
    """`make_config({"stream.batch_size": 7})`: BASE with dotted keys replaced; its cache is the test's own."""

    def make(changes: dict[str, Any] | None = None) -> RunConfig:
        mapping = {key: value.copy() if isinstance(value, dict) else value for key, value in BASE.items()}
        mapping["data"]["splits"] = dict(BASE["data"]["splits"])
        mapping["training"] = {key: dict(value) for key, value in BASE["training"].items()}
        for dotted, value in {"runtime.cache_dir": str(tmp_path / "cache"), **(changes or {})}.items():
            *sections, key = dotted.split(".")
            target = mapping
            for section in sections:
                target = target[section]
            target[key] = value
        return RunConfig.parse(mapping)

    return make


@pytest.fixture
def images() -> ImageSet:
    """200 random 8x8 grey images of 4 unequal classes."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), (80, 60, 40, 20)))
    return ImageSet(rng.integers(0, 256, (200, 1, 8, 8), dtype=np.uint8), labels.astype(np.int64), 4)
