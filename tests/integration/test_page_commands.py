"""Every fedmd command of README and docs, in a process of its own, in the page's order, in a fresh clone.

A page's commands share a clone, as they would on a reader's disk; what is not committed is not in it. What takes hours
is composed by tests/test_docs.py; what goes through Flower's own launcher is in test_flwr_commands.py.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import PAGES, commands, name, write_modules

ROOT = Path(__file__).resolve().parents[2]
FEDMD = Path(sys.executable).parent / "fedmd"
LONG = (  # minutes to hours, and the same code as a smaller study's
    *(
        "adaptive",
        "adaptive_stream",
        "attack_shape",
        "cifar10",
        "cifar10_shape",
        "demo",
        "drift",
        "paper_cifar10",
        "two_phase",
    ),
    *("two_phase_shares", "update_mode", "update_mode_cifar10", "update_mode_non_iid"),
)
REFUSED = re.compile(r"quarantine \S+ release")  # "is for a run that goes on": of a finished one it is refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page, "fedmd")], ids=name)
def test_the_commands_of_a_page_work_as_typed(page: Path, tmp_path: Path) -> None:
    clone = tmp_path / "fedmd"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, clone], check=True, capture_output=True)
    write_modules(clone)
    environment = {**os.environ, "FEDMD_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(clone)
    before = left_behind(clone)
    done: set[str] = set()
    for words in commands(page, "fedmd"):
        typed = shlex.join(words[1:])
        if typed in done or (words[1] == "compare" and words[2].removeprefix("experiment=") in LONG):
            continue
        done.add(typed)
        local = [word.replace("/tmp/", f"{tmp_path}/").replace("/srv/", f"{tmp_path}/") for word in words[1:]]
        ended = subprocess.run([FEDMD, *local], cwd=clone, env=environment, capture_output=True, text=True, timeout=900)
        assert ended.returncode == (2 if REFUSED.match(typed) else 0), f"{typed}\n{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr, typed
    assert done
    assert left_behind(clone) == before


def left_behind(clone: Path) -> str:
    """What git would add or has changed: a reader's checkout stays clean."""
    return subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True
    ).stdout
