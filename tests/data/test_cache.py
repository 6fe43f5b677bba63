"""The disk cache of arrays, and where it lives."""

from pathlib import Path

import numpy as np
import pytest

from fedmd.config import ConfigError
from fedmd.data.cache import cached_arrays, default_cache_dir


def test_arrays_are_built_once_and_come_back_read_only(tmp_path: Path) -> None:
    calls = []

    def build() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(6).reshape(2, 3), "b": np.zeros(0, np.uint8)}

    for _ in range(2):
        stored = cached_arrays(tmp_path, "key", ("a", "b"), build)
        assert np.array_equal(stored["a"], np.arange(6).reshape(2, 3)) and stored["b"].dtype == np.uint8
        assert not stored["a"].flags.writeable
    assert len(calls) == 1


@pytest.mark.parametrize("kept", [0, 3, 60, -1])
def test_a_damaged_file_is_built_again(tmp_path: Path, kept: int) -> None:
    for _ in range(2):
        stored = cached_arrays(tmp_path, "key", ("a",), lambda: {"a": np.arange(100)})
        assert np.array_equal(stored["a"], np.arange(100))
        file = next(tmp_path.glob("*.npy"))
        file.write_bytes(file.read_bytes()[:kept])


def test_the_folder_is_the_setting_then_the_environment_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "environment"))
    assert default_cache_dir(str(tmp_path / "setting")) == tmp_path / "setting"
    assert default_cache_dir(None) == tmp_path / "environment"
    monkeypatch.delenv("FEDMD_CACHE")
    assert default_cache_dir(None) == tmp_path / "home/.cache/fedmd"
    assert (tmp_path / "home/.cache/fedmd").is_dir()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^runtime\.cache_dir: the folder .*file/cache cannot be created"):
        default_cache_dir(str(tmp_path / "file/cache"))
