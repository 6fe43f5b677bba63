"""The federations of `federation.py`, each in a folder of its own, on one cache."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmd.config import RunConfig
from tests.rounds.federation import MODES, Federation, with_brightness_detector


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of this folder: burn-in is trained once a setting."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each mode in turn."""
    mode: str = request.param
    return mode


@pytest.fixture
def federation(make_config: Callable[..., RunConfig], cache: Path, tmp_path: Path) -> Callable[..., Federation]:
    """`federation(changes)`: streamed samples, nobody in quarantine, two layers of two channels."""
    numbers = itertools.count()

    def build(changes: dict[str, Any] | None = None, **kwargs: Any) -> Federation:
        settings = {"model": {"name": "cnn", "width": 2}, "runtime.cache_dir": str(cache), **(changes or {})}
        return Federation(make_config(settings), tmp_path / f"run-{next(numbers)}", **kwargs)

    return build


@pytest.fixture
def in_mode(federation: Callable[..., Federation]) -> Callable[..., Federation]:
    """`in_mode(mode, changes)`: a federation whose client BAD is put in quarantine as soon as it is bad."""

    def build(mode: str, changes: dict[str, Any] | None = None, **kwargs: Any) -> Federation:
        settings = {"model": {"name": "cnn", "width": 4}, **MODES[mode], **(changes or {})}
        built = federation(settings, **kwargs)
        return with_brightness_detector(built) if built.config.quarantine.name == "evidence" else built

    return build
