"""What `import fedmd` gives: cheap to import, complete, and as its docstrings show it."""

import doctest
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedmd

PACKAGE = Path(fedmd.__file__).parent
DOCUMENTED = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


def test_importing_costs_nothing() -> None:
    heavy = {"torch", "flwr", "hydra", "ray", "pandas", "numpy", "matplotlib"}
    code = "import sys, fedmd; dir(fedmd); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "fedmd" in done.stdout.split() and not heavy & set(done.stdout.split())


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(fedmd.__all__) == fedmd.__all__ and len(set(fedmd.__all__)) == len(fedmd.__all__)
    assert sorted(name for names in fedmd._MODULES.values() for name in names) == fedmd.__all__
    for name in fedmd.__all__:
        assert getattr(fedmd, name).__doc__
    assert set(fedmd.__all__) < set(dir(fedmd))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fedmd.nothing


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert fedmd.__version__ == project["version"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples: what one has run the next one skips."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_in_docstrings_run_as_printed(name: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMD_CACHE", str(work / "cache"))
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    examples = [test for test in finder.find(module, globs={"fedmd": fedmd, "work": work}) if test.examples]
    assert examples
    for test in examples:
        report: list[str] = []
        runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(fedmd.ConfigError, match=r"^defense: 'dcs' is not one of "):
        fedmd.run(defense="dcs", folder=tmp_path)
    with pytest.raises(fedmd.ConfigError, match="no finished run"):
        fedmd.load(tmp_path)
