"""The numbers of README and docs are those of the committed rows: `simulations/results/recompute.py`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def recompute() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recompute", ROOT / "simulations/results/recompute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_pages_agree_with_the_rows(recompute: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert recompute.main([]) == 0, capsys.readouterr().out


@pytest.fixture
def small(recompute: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and two arms of three seeds."""
    rows = {"plain": (0.5, 0.6, 0.7), "dsc": (0.6, 0.72, 0.78), "dsc_b": (0.8, 0.9, 1.0), "plain_b": (0.5, 0.5, 0.5)}
    lines = ["arm,seed,accuracy.final,detection.auroc"]
    lines += [f"{arm},{seed},{value},0.8" for arm, values in rows.items() for seed, value in enumerate(values)]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "results.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "claims.txt").write_text(
        "# page.md\nplain has {study; plain} and\n| DSC | {study; dsc; plain} |\n"
        "AUROC {study; dsc @detection.auroc =mean}.\n"
        "all: {study; dsc*; plain* =values}\n"
    )
    (tmp_path / "page.md").write_text(
        "Here plain\nhas 60.0 ± 24.8 and\n\n| DSC | 10.0 [5.0, 15.0] |\nAUROC 0.800.\nall: 20.0, 26.0, 29.0\n"
    )
    for name, value in (("ROWS", tmp_path), ("ROOT", tmp_path), ("CLAIMS", tmp_path / "claims.txt")):
        monkeypatch.setattr(recompute, name, value)
    recompute.rows.cache_clear()
    return tmp_path / "page.md"


def test_right_numbers_pass_however_lines_are_broken(recompute: ModuleType, small: Path) -> None:
    """60 ± 4.3027 · 10 / √3, 10 ± 4.3027 · 2 / √3, and the means of 10, 30; 12, 40; 8, 50."""
    assert recompute.main([]) == 0


@pytest.mark.parametrize(
    ("was", "instead", "complaint"),
    [
        ("60.0 ± 24.8", "60.1 ± 24.8", "60.1 ± 24.8 should be 60.0 ± 24.8"),
        ("[5.0, 15.0]", "[5.0, 15.1]", "10.0 [5.0, 15.1] should be 10.0 [5.0, 15.0]"),
        ("0.800", "0.900", "0.900 should be 0.800"),
        ("AUROC", "auroc", "not there: AUROC"),
        ("AUROC", "and 3 ± 1 AUROC", "nobody's"),
    ],
)
def test_a_difference_is_found_and_mended(
    recompute: ModuleType, small: Path, capsys: pytest.CaptureFixture[str], was: str, instead: str, complaint: str
) -> None:
    right = small.read_text()
    small.write_text(right.replace(was, instead))
    assert recompute.main([]) == 1
    assert complaint in capsys.readouterr().out
    if "should be" in complaint:
        assert recompute.main(["--fill"]) == 0 and small.read_text() == right


@pytest.mark.parametrize("text", ["study", "study; nobody", "study; plain =loud", "study; plain @accuracy.never"])
def test_expressions_that_mean_nothing_are_refused(recompute: ModuleType, small: Path, text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        recompute.Expression.parse(text).text()
