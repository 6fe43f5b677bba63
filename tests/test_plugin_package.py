"""simulations/plugin, installed as a user installs it, without network, and run by the real command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = [
    "data=digits", "training.burn_in.epochs=2", "stream.clean_rounds=1", "stream.accumulative_rounds=2",
    "stream.trigger_rounds=1", "stream.recovery_rounds=0", "stream.batch_size=4", "federation.clients=4",
    "attack.fraction=0.5", "runtime.progress=false", "runtime.engine=inline",
]  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the package is installed beside this checkout of fedmd."""
    pytest.importorskip("hatchling.build", reason="the build backend is not installed")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    source = ROOT / "simulations" / "plugin"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    path = os.pathsep.join([str(target), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "FEDMD_CACHE": str(tmp_path_factory.mktemp("cache"))}


def fedmd(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from fedmd.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


def test_it_is_short_and_changes_nothing_in_fedmd() -> None:
    files = list((ROOT / "simulations" / "plugin" / "fedmd_example").glob("*.py"))
    assert len(files) == 5 and sum(len(path.read_text().splitlines()) for path in files) < 100
    for path in (ROOT / "fedmd").rglob("*.py"):
        assert "fedmd_example" not in path.read_text(), path


def test_it_is_listed_with_its_package(environment: dict[str, str], tmp_path: Path) -> None:
    listed = fedmd(environment, tmp_path, "list", "attacks", "defenses", "detectors", "models")
    assert listed.returncode == 0, listed.stderr
    lines = {line.split()[0]: line for line in listed.stdout.splitlines() if line.startswith("  ")}
    for name in ("fade", "drop_clients", "margin", "perceptron"):
        assert "fedmd-example" in lines[name]
    assert "Images faded towards grey" in lines["fade"]


def test_all_four_make_a_run(environment: dict[str, str], tmp_path: Path) -> None:
    chosen = ["attack=fade", "attack.strength=0.9", "defense=drop_clients", "defense.share=0.25", "model=perceptron"]
    chosen += ["defense.detector=margin", "model.hidden=24", "threshold.fpr=0.2"]
    done = fedmd(environment, tmp_path, "run", *SMALL, *chosen, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    config = summary["config"]
    assert config["attack"]["name"] == "fade" and config["attack"]["strength"] == 0.9
    assert (config["defense"]["name"], config["defense"]["detector"], config["defense"]["share"]) == (
        "drop_clients", "margin", 0.25,
    )  # fmt: skip
    assert config["model"] == {"name": "perceptron", "hidden": 24}
    assert len(summary["malicious_clients"]) == 2
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Closeness of the first two guesses over time" in report
    assert "Closeness of the first two guesses (the defence&#39;s)" in report


def test_the_attack_is_for_mode_update_too(environment: dict[str, str], tmp_path: Path) -> None:
    chosen = ["mode=update", "attack=fade", "model=cnn", "model.width=2", "local.samples=20"]
    common = [override for override in SMALL if not override.startswith("stream.batch_size")]  # of mode=stream
    done = fedmd(environment, tmp_path, "run", *common, *chosen, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr


def test_by_factory_nothing_need_be_an_entry_point(environment: dict[str, str], tmp_path: Path) -> None:
    """And a mistake in a plug-in's own settings costs one line."""
    chosen = ["attack=custom", "attack.factory=fedmd_example.attack:Fade", "attack.params.strength=2"]
    done = fedmd(environment, tmp_path, "run", *SMALL, *chosen)
    assert done.returncode == 2
    assert done.stderr == "fedmd: attack.params.strength: input should be less than or equal to 1, not 2.\n"
    chosen[-1] = "attack.params.strength=0.5"
    detector = ["defense=drop", "defense.detector=custom", "defense.detector_factory=fedmd_example.detector:Margin"]
    done = fedmd(environment, tmp_path, "run", *SMALL, *chosen, *detector, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
