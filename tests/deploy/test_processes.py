"""Nothing that was started is left, however it was started and however the block ends."""

import sys
import time
from pathlib import Path

import pytest

from fedmd.deploy.processes import ProcessError, Processes

ORPHAN = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"],
                 start_new_session=True)
print("started", flush=True)
time.sleep(60)
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def started(processes: Processes) -> None:
    """A process and its child, which is in a session of its own and ignores SIGTERM."""
    processes.start("parent", [sys.executable, "-c", ORPHAN])
    processes.wait_for("the child", lambda: len(processes.left()) == 2, timeout_s=30, needs=["parent"])


def test_all_are_gone_after_the_block(tmp_path: Path) -> None:
    with Processes(tmp_path, {}) as processes:
        started(processes)
    assert processes.left() == []


def test_all_are_gone_after_an_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Processes(tmp_path, {}) as processes:
        started(processes)
        raise KeyboardInterrupt
    assert processes.left() == []


def test_orphans_of_a_killed_process_are_found(tmp_path: Path) -> None:
    with Processes(tmp_path, {}) as processes:
        started(processes)
        processes.kill("parent")
        assert len(processes.left()) == 1
    assert processes.left() == []


def test_a_name_is_one_process_also_where_it_hides_its_mark(tmp_path: Path) -> None:
    """As nginx does, which writes its title over its environment: started again, the first must not be forgotten."""
    with Processes(tmp_path, {}) as processes:
        for file in ("first", "second"):
            command = f"echo $$ > {tmp_path / file}; exec env -i sleep 60"
            processes.start("proxy", ["sh", "-c", command])
            processes.wait_for(file, lambda file=file: (tmp_path / file).exists(), timeout_s=30)  # type: ignore[misc]
    for file in ("first", "second"):
        assert not Path("/proc", (tmp_path / file).read_text().strip()).exists()


def test_other_peoples_processes_are_none_of_its_business(tmp_path: Path) -> None:
    with Processes(tmp_path, {}) as mine, Processes(tmp_path, {}) as other:
        started(mine)
        assert other.left() == []
        other.stop_all()
        assert len(mine.left()) == 2


def test_a_process_that_ends_too_early_is_reported_with_its_words(tmp_path: Path) -> None:
    with Processes(tmp_path, {}) as processes:
        processes.start("server", [sys.executable, "-c", "print('no such certificate'); raise SystemExit(7)"])
        with pytest.raises(ProcessError, match=r"server ended with code 7 before it was ready:\nno such certificate"):
            processes.wait_for("it was ready", lambda: False, timeout_s=30, needs=["server"])


def test_waiting_ends(tmp_path: Path) -> None:
    with Processes(tmp_path, {}) as processes, pytest.raises(ProcessError, match=r"waited 0.1 s for the moon"):
        processes.wait_for("the moon", lambda: False, timeout_s=0.1)


def test_commands_run_to_their_end_or_to_their_limit(tmp_path: Path) -> None:
    with Processes(tmp_path, {"COLOUR": "blue"}) as processes:
        shown = processes.run([sys.executable, "-c", "import os; print(os.environ['COLOUR'])"], timeout_s=30)
        assert shown == "blue\n"
        with pytest.raises(ProcessError, match="failed with code 3:\nbad luck"):
            processes.run([sys.executable, "-c", "print('bad luck'); raise SystemExit(3)"], timeout_s=30)
        began = time.monotonic()
        with pytest.raises(ProcessError, match=r"took longer than 0\.5 s"):
            processes.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.5)
        assert time.monotonic() - began < 30
