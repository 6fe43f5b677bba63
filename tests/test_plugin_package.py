"""simulations/plugin, installed as a user installs it, without network, and used through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SMALL = [
    "data=digits", "training.burn_in.epochs=2", "stream.clean_rounds=1", "stream.accumulative_rounds=2",
    "stream.trigger_rounds=1", "stream.recovery_rounds=0", "stream.batch_size=4", "federation.clients=4",
    "attack.fraction=0.5", "runtime.progress=false", "runtime.engine=inline",
]  # fmt: skip
STREAM = [
    *SMALL, "attack=fade", "attack.strength=0.9", "defense=drop_clients", "defense.share=0.25", "model=perceptron",
    "defense.detector=margin", "model.hidden=24", "threshold.fpr=0.2",
]  # fmt: skip
UPDATE = [
    *(override for override in SMALL if not override.startswith("stream.batch_size")),  # of mode=stream
    "mode=update", "attack=fade", "model=cnn", "model.width=2", "local.samples=20",
]  # fmt: skip
FACTORY = [*SMALL, "attack=custom", "attack.factory=fedmd_example.attack:Fade"]
DETECTOR = ["defense=drop", "defense.detector=custom", "defense.detector_factory=fedmd_example.detector:Margin"]
COMMANDS = {
    "list": ["list", "attacks", "defenses", "detectors", "models"],
    "stream": ["run", *STREAM, "hydra.run.dir=stream"],
    "update": ["run", *UPDATE, "hydra.run.dir=update"],
    "mistake": ["run", *FACTORY, "attack.params.strength=2"],
    "factory": ["run", *FACTORY, "attack.params.strength=0.5", *DETECTOR, "hydra.run.dir=factory"],
}
PROGRAM = """
import contextlib, io, json, sys
from fedmd.cli.main import main
done = {}
for name, arguments in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            done[name] = [end.code, out.getvalue(), err.getvalue()]
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are given."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Exit code, output and errors of COMMANDS, in one process beside which the package is installed."""
    pytest.importorskip("hatchling.build", reason="the build backend is not installed")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    source = ROOT / "simulations" / "plugin"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    path = os.pathsep.join([str(target), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "FEDMD_CACHE": str(tmp_path_factory.mktemp("cache"))}
    command = [sys.executable, "-c", PROGRAM, json.dumps(COMMANDS)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, list[Any]] = json.loads(ended.stdout)
    return found


def test_it_is_short_and_changes_nothing_in_fedmd() -> None:
    files = list((ROOT / "simulations" / "plugin" / "fedmd_example").glob("*.py"))
    assert len(files) == 5 and sum(len(path.read_text().splitlines()) for path in files) < 100
    for path in (ROOT / "fedmd").rglob("*.py"):
        assert "fedmd_example" not in path.read_text(), path


def test_it_is_listed_with_its_package(done: dict[str, list[Any]]) -> None:
    code, out, err = done["list"]
    assert code == 0, err
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    for name in ("fade", "drop_clients", "margin", "perceptron"):
        assert "fedmd-example" in lines[name]
    assert "Images faded towards grey" in lines["fade"]


def test_all_four_make_a_run(done: dict[str, list[Any]], folder: Path) -> None:
    assert done["stream"][0] == 0, done["stream"]
    summary = json.loads((folder / "stream" / "summary.json").read_text())
    config = summary["config"]
    assert config["attack"]["name"] == "fade" and config["attack"]["strength"] == 0.9
    assert (config["defense"]["name"], config["defense"]["detector"], config["defense"]["share"]) == (
        "drop_clients", "margin", 0.25,
    )  # fmt: skip
    assert config["model"] == {"name": "perceptron", "hidden": 24}
    assert len(summary["malicious_clients"]) == 2
    report = (folder / "stream" / "report.html").read_text()
    assert "Closeness of the first two guesses over time" in report
    assert "Closeness of the first two guesses (the defence&#39;s)" in report


def test_the_attack_is_for_mode_update_too(done: dict[str, list[Any]]) -> None:
    assert done["update"][0] == 0, done["update"]


def test_by_factory_nothing_need_be_an_entry_point(done: dict[str, list[Any]]) -> None:
    """And a mistake in a plug-in's own settings costs one line."""
    assert done["mistake"] == [
        2, "", "fedmd: attack.params.strength: input should be less than or equal to 1, not 2.\n",
    ]  # fmt: skip
    assert done["factory"][0] == 0, done["factory"]
