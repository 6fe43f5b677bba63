"""The command line as a user meets it: help, versions, one sentence for every mistake."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from fedmd.cli import main as cli
from fedmd.cli.commands import app
from fedmd.cli.overrides import complete
from fedmd.config import RunConfig
from fedmd.registry import REGISTRIES
from fedmd.rounds.folder import note_config
from fedmd.runs import launch
from fedmd.runs.cell import Watcher
from fedmd.runs.compose import Composed, choices, compose, groups

FEDMD = Path(sys.executable).parent / "fedmd"


def call(*arguments: str) -> int:
    """The exit code of `fedmd arguments...`, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return caught.value.code if isinstance(caught.value.code, int) else 0


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for word in ("fedmd run", "compare", "audit", "doctor", "deploy", "-m", "--cfg", "hydra.run.dir"):
        assert word in out


def test_help_fits_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call() == 0 and call("run", "--help") == 0
    out = capsys.readouterr().out
    assert "\\b" not in out and "..." not in out.split("Commands:")[1].split("Usage:")[0]
    assert [line for line in out.splitlines() if len(line) > 80 and not line.startswith("    data.")] == []


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below `group` that its help shows, and how it is typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        elif not command.hidden:
            yield f"{path}{name}", command


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL)
def test_a_commands_help_explains_each_argument_and_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the releases of Typer and Click that are installed: some pairs of them lose what is said of arguments."""
    assert call(*name.split(), "--help") == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith(f"Usage: fedmd {name} ")
    shown = " ".join(out.split())
    for parameter in ALL[name].params:
        if not getattr(parameter, "hidden", False):
            called = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.metavar
            meaning = getattr(parameter, "meaning", None) or getattr(parameter, "help", None)
            assert meaning, (called, "has no help")
            assert called in shown and shown.count(" ".join(meaning.split())) == 1


def test_the_help_of_run_explains_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Every group with its options, and every key of a default option, with what its file says of it."""
    assert call("run", "-h") == 0
    out = " ".join(capsys.readouterr().out.split())
    others = ", ".join(option for option in choices("defense") if option != "dsc")
    assert f"defense=dsc or {others} " in out
    assert "attack.trigger=null fixed: crafted once, at the attack's start; online: crafted anew every round;" in out
    assert "mode=stream or update" in out and "mode.mode" not in out
    assert re.search(r"attack\.fraction=0\.2 +share of clients that are malicious for the whole run", out)
    assert re.search(r"stream\.shift\.angle=45 +name=rotation: degrees counter-clockwise", out)
    assert "md_screen" not in out  # an old name
    for group in groups():
        assert f" {group}=" in out


def test_the_shell_completes_groups_keys_and_options() -> None:
    assert complete("defense=dr") == ["defense=drop"]
    assert complete("attack.fr") == ["attack.fraction="]
    assert {"history=", "history.decay="} <= set(complete("hist"))
    assert complete("nothing") == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"fedmd {version('fedmd')}\n"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # this process has imported it before
def test_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fedmd", "--version"])
    for module in ("fedmd", "fedmd.cli.main"):
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
        assert ended.value.code == 0 and capsys.readouterr().out == f"fedmd {version('fedmd')}\n"


def test_cfg_prints_what_would_run_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("run", "--cfg", "attack.fraction=0.4", "defense=drop", "seed=9") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    for key in ("experiment", "compare", "tune", "resume"):
        printed.pop(key, None)
    config = RunConfig.parse(printed)  # it is complete, and composes to itself
    assert (config.attack.fraction, config.defense.name, config.seed) == (0.4, "drop", 9)
    assert list(tmp_path.iterdir()) == []


def test_cfg_of_a_sweep_prints_every_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "-m", "--cfg", "seed=4,5", "defense=none,dsc") == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [(one["seed"], one["defense"]["name"]) for one in printed] == [
        (4, "none"),
        (4, "dsc"),
        (5, "none"),
        (5, "dsc"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rn",), ["'rn'", "run, compare"]),
        (("run", "attack.frction=0.2"), ["attack.frction", "did you mean fraction?"]),
        (("run", "attak.fraction=0.2"), ["attak.fraction", "unknown key"]),
        (("run", "a.b=1", "c.d=2"), ["a.b", "unknown key"]),
        (("run", "defense=dcs"), ["defense", "at, clip, custom", "frozen, none"]),
        (("run", "seed=1,2"), ["seed", "-m"]),
        (("run", "attack.fraction=2"), ["attack.fraction", "1", "not 2"]),
        (("run", "--wat"), ["--wat", "-m"]),
        (("run", "--cfg", "jobs=1"), ["jobs", "unknown key"]),
        (("run", "--cfg=jobs"), ["--cfg", "'jobs'", "job, hydra, all"]),
        (("run", "--cfg", "-p", "attack.x"), ["--package", "attack.x"]),
        (("run", "--resolve"), ["--resolve", "--cfg"]),
        (("run", "-mx"), ["-x", "KEY=VALUE"]),
        (("run", "--info"), ["--info", "fedmd list", "--cfg all", "fedmd doctor"]),
        (("run", "-cn", "mine"), ["--config-name", "--config-dir DIR experiment=NAME"]),
        (("run", "--config-path", "mine"), ["--config-path", "--config-dir"]),
        (("run", "--hydra-help"), ["--hydra-help", "fedmd run --help"]),
        (("run", "--config-dir", "/no/such"), ["--config-dir", "/no/such"]),
        (("run", "hydra/launcher=joblib"), ["hydra/launcher", "runtime.workers"]),
        (("run", "hydra/sweeper=optuna"), ["hydra/sweeper", "-m"]),
        (("run", "-m", "hydra/sweeper=ax"), ["hydra/sweeper", "'ax'", "basic, optuna"]),
        (("run", "-m", "hydra/sweeper=optuna"), ["nothing to search", "interval(LOW,HIGH)"]),
        (("run", "-m", "hydra/sweeper=optuna", "seed=0,1"), ["seed", "tune.seeds"]),
        (("run", "-m", "seed=glob(*)"), ["seed", "no option"]),
        (("run", "-m", "attack.fraction=interval(0,1)"), ["attack.fraction", "seed=0,1,2", "optuna"]),
        (("run", "strategy=krum"), ["strategy", "mode=update"]),
        (("run", "threshold=calibrated", "threshold.path=/no/such"), ["threshold.path", "/no/such"]),
        (("new", "attack", "My-Attack"), ["'My-Attack'", "lower-case"]),
        (("status", "/no/such/run"), ["/no/such/run"]),
        (("run", "seed"), ["'seed'", "key=value"]),
        (("run", "data=parquet", "data.path=/no/such/file"), ["data.path", "/no/such/file"]),
        (("run", "data=digits", "data.splits.test=3000"), ["data.splits", "1797"]),
        (("run", "data=digits", "model.name=foo"), ["model.name", "'foo'", "cnn"]),
        (("run", "data=digits", "hydra.run.dir=/proc/no"), ["hydra.run.dir", "/proc/no"]),
        (("compare",), ["experiment", "smoke"]),
        (("run", "quarantine=evidence", "quarantine.shift=0.9"), ["quarantine.shift", "0.5"]),
        (("audit",), ["fedmd audit", "RUN_DIR", "--verify"]),
        (("audit", "/no/such/run"), ["/no/such/run", "audit trail"]),
        (("audit", "x", "--export", "xml"), ["--export", "csv"]),
        (("audit", "x", "--client", "me"), ["--client", "me"]),
        (("quarantine", "x", "free"), ["free", "release"]),
        (("quarantine", "/no/such/run", "list"), ["/no/such/run", "audit trail"]),
        (("compare", "experiment=smoke", "-m"), ["-m", "KEY=VALUE"]),
        (
            ("compare", "experiment=smoke", "+compare.arms.again=['attack=none','defense=none']"),
            ["compare.arms", "'no_attack' and 'again'"],
        ),
        (("compare", "experiment=smoke", "hydra.sweep.dir=/proc/no"), ["hydra.sweep.dir", "/proc/no"]),
    ],
)
def test_mistakes_cost_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("flwr.simulation.run_simulation", lambda *args, **kwargs: pytest.fail("Ray was started"))
    assert call(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("fedmd: ") and err.count("\n") == 1 and err.endswith(".\n"), err
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resume=nowhere"], ["nowhere", "no folder of a run"]),
        (["resume=other"], ["config.json", "another version", "colour"]),
        (["resume=run", "seed=2"], ["leave out 'seed=2'"]),
        (["seed=2", "resume=run"], ["leave out 'seed=2'"]),
        (["resume=run", "resume=other"], ["leave out 'resume=run'"]),
        (["-m", "resume=run"], ["-m"]),
        (["--cfg", "resume=run"], ["--cfg"]),
    ],
)
def test_what_cannot_be_resumed(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("run", "other"):
        note_config(tmp_path / name, compose([]).config)
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text().replace("{", '{"colour": 1, ', 1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flwr.simulation.run_simulation", lambda *args, **kwargs: pytest.fail("Ray was started"))
    assert call("run", *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("fedmd: resume: ") and err.count("\n") == 1 and err.endswith(".\n"), err
    assert all(word in err for word in words), err


def test_resume_hands_over_the_runs_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def fake(cells: list[Any], *others: Any, **kwargs: Any) -> list[Any]:
        seen.extend(cells)
        return []

    monkeypatch.setattr(launch, "simulate", fake)
    monkeypatch.setattr(launch, "write_report", lambda folder: folder)
    monkeypatch.setattr(launch, "refused_altogether", lambda cells: [])
    note_config(tmp_path / "a run", compose(["seed=7", "data=digits"]).config)
    monkeypatch.chdir(tmp_path)
    for written in ("resume=a run", f"resume='{tmp_path}/a run'"):
        assert call("run", written) == 0
    config = compose(["seed=7", "data=digits"]).config
    assert [(cell.config, cell.folder, cell.resume) for cell in seen] == [(config, tmp_path / "a run", True)] * 2


def test_resume_is_for_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", "experiment=smoke", "resume=run") == 2
    assert call("run", "--cfg", "resume=null") == 0
    assert "resume: is for fedmd run alone" in capsys.readouterr().err


def test_an_interrupted_run_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(launch, "launch", interrupted)
    monkeypatch.setattr(os, "_exit", leave)  # the real one would end the tests as it ends the server's thread
    assert call("run") == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_run_hands_over_what_was_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One run goes to hydra.run.dir and is never skipped; a sweep goes to hydra.sweep.dir and is."""
    seen: list[tuple[list[Path], bool]] = []

    def fake(runs: list[Composed], watcher: Watcher, *, sweep: bool) -> None:
        seen.append(([run.folder for run in runs], sweep))

    monkeypatch.setattr(launch, "launch", fake)
    assert call("run", "seed=3", f"hydra.run.dir={tmp_path}/one") == 0
    assert call("run", "-m", "seed=3,4", f"hydra.sweep.dir={tmp_path}/many", "hydra.sweep.subdir=s${seed}") == 0
    assert seen == [([tmp_path / "one"], False), ([tmp_path / "many/s3", tmp_path / "many/s4"], True)]


@pytest.mark.parametrize("kind", ["attacks", "defences", "defenses", "detectors", "models", "data"])
def test_list_shows_every_plugin_with_a_line_from_its_docstring(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", kind) == 0
    section = {"attacks": "attack", "defences": "defense", "detectors": "detector", "models": "model"}
    registry = REGISTRIES[section.get(kind.replace("defenses", "defences"), kind)]
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:] if line}
    assert sorted(lines) == sorted(registry.names())
    for name, line in lines.items():
        assert "built-in" in line and registry.resolve(name).summary()[:60] in line
    if kind == "attacks":
        assert " update " in lines["alie"] and " stream " in lines["noise"] and "both modes" in lines["accumulative"]


def test_list_shows_all_kinds_and_knows_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list") == 0
    assert "accumulative" in (out := capsys.readouterr().out) and "resnet_small" in out and "digits" in out
    assert call("list", "attackers") == 2
    assert "'attackers' is nothing to list; kinds: attacks, defences" in capsys.readouterr().err


# -- the installed script, in another folder, without this process's imports ------------------------------------------


def script(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FEDMD, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_installed_script_from_another_folder(tmp_path: Path) -> None:
    done = script("run", "--cfg", "seed=11", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["seed"] == 11


def test_the_installed_script_on_a_typo(tmp_path: Path) -> None:
    done = script("run", "attak.fraction=0.2", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fedmd: ") and done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []
