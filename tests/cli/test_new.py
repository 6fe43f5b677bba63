"""`fedmd new` makes skeletons that work: their own tests pass, and what they print can be typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedmd.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def new(kind: str, name: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["new", kind, name])
    return int(str(ended.value.code))


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new("attack", "mine") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "test_mine.py"]
    assert "class Mine(fedmd.Attack)" in (tmp_path / "mine.py").read_text()
    before = (tmp_path / "mine.py").read_text()
    for kind in ("attack", "detector"):
        assert new(kind, "mine") == 2
        assert capsys.readouterr().err == "fedmd: mine.py: is there already; take another name.\n"
    assert (tmp_path / "mine.py").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attack", "defence", "detector", "study"])
def test_a_skeleton_works(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new(kind, "my_own") == 0
    place = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "FEDMD_CACHE": str(tmp_path / "cache")}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_own.py"],
        cwd=tmp_path, env={**os.environ, **place}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout
