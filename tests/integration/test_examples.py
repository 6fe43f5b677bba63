"""README's examples show what they are there for: the attack costs something, and the defence gives some of it back."""

import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

import fedmd
from fedmd.runs.compose import expand
from tests.test_docs import README, commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def typed(start: str) -> list[str]:
    """The arguments of README's only command that begins so, without the folder."""
    (words,) = [words for words in commands(README, "fedmd") if shlex.join(words).startswith(start)]
    return [word for word in words[2:] if not word.startswith(("hydra.", "-"))]


def final(settings: list[str], folder: Path) -> float:
    return float(fedmd.run(*settings, folder=folder).summary["accuracy"]["final"])


def test_the_first_run(tmp_path: Path) -> None:
    """93.1 %; undefended 90.5, nobody attacks 93.5: on another machine other digits, but no other order."""
    defended = typed("fedmd run attack.fraction=0.2 defense=recommended")
    shares = [setting for setting in defended if not setting.startswith("defense=")]
    ends = {
        "defended": final(defended, tmp_path / "defended"),
        "undefended": final([*shares, "defense=none"], tmp_path / "undefended"),
        "in peace": final(["attack=none", "defense=none"], tmp_path / "in peace"),
    }
    assert ends["in peace"] - ends["undefended"] > 0.02 and ends["defended"] - ends["undefended"] > 0.01, ends


def test_the_sweep(tmp_path: Path) -> None:
    """Means over its seeds: more attackers cost more than fewer, and the defence is ahead wherever there are any."""
    ends = defaultdict(list)
    for i, settings in enumerate(expand(typed("fedmd run -m experiment=smoke"))):
        known = dict(setting.split("=") for setting in settings)
        end = final([*settings, "runtime.engine=inline"], tmp_path / str(i))
        ends[known["defense"], float(known["attack.fraction"])].append(end)
    mean = {key: fmean(values) for key, values in ends.items()}
    for share in (0.25, 0.5):
        assert mean["none", 0] - mean["none", share] > 0.04, mean
        assert mean["recommended", share] - mean["none", share] > 0.01, mean


def test_the_plain_loop(tmp_path: Path) -> None:
    """simulations/minimal.py over its five seeds: 67.8 % attacked against 77.7 clean, and 79.1 with the defence."""
    script = Path(__file__).parents[2] / "simulations/minimal.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path)
    shown = re.findall(r"defence (\w+) +attacked (\w+) +accuracy ([\d.]+) %", done.stdout)
    mean = {(defence, attacked == "True"): float(percent) for defence, attacked, percent in shown}
    assert len(mean) == 4, done.stdout
    assert mean["none", True] < mean["none", False] - 3
    assert mean["dsc", True] > mean["none", True] + 3
    assert mean["dsc", False] > mean["none", False] - 3  # it costs little where nobody attacks
