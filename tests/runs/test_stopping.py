"""SIGTERM ends the round that is under way; what went on before is done anew; nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmd.config import RunConfig
from fedmd.report.files import SUMMARY, read_metrics
from fedmd.rounds.checkpoint import CHECKPOINT
from fedmd.rounds.folder import noted_config
from fedmd.runs import stopping
from fedmd.runs.compose import compose
from fedmd.types import RoundReport
from tests.runs.test_damage import SMALL, federate

FEDMD = Path(sys.executable).parent / "fedmd"


def asking_in(round: int, rounds: list[int], times: int = 1) -> Callable[[RunConfig, RoundReport], None]:
    """An observer that sends SIGTERM to its own process in `round`, and notes all."""

    def observe(config: RunConfig, report: RoundReport) -> None:
        rounds.append(report.round)
        if report.round == round:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)

    return observe


def settings(folder: Path, *more: str) -> RunConfig:
    return compose([*SMALL, *more, f"hydra.run.dir={folder}", f"runtime.cache_dir={folder.parent}"]).config


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("peace") / "run"
    federate(settings(folder), folder, lambda config, report: None, resume=False)
    return without_times(folder)


def without_times(folder: Path) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in read_metrics(folder)]


@pytest.mark.parametrize("more", [[], ["runtime.checkpoint_every=0"]])
def test_the_round_ends_and_its_checkpoint_is_written(
    tmp_path: Path, more: list[str], in_peace: list[dict[str, object]]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    folder, rounds = tmp_path / "run", list[int]()
    with pytest.raises(SystemExit) as end, stopping.stopping_on_sigterm():
        federate(settings(folder, *more), folder, asking_in(1, rounds), resume=False)
    assert end.value.code == 143 and rounds == [0, 1] and signal.getsignal(signal.SIGTERM) is before
    assert (folder / CHECKPOINT).exists() and not (folder / SUMMARY).exists()
    assert not list(Path("/dev/shm").glob(f"fedmd-{os.getpid()}-*"))
    again: list[int] = []
    federate(noted_config(folder), folder, lambda config, report: again.append(report.round), resume=True)
    assert again == [2, 3]
    assert without_times(folder) == in_peace


def test_not_amid_the_batches_of_one_reply(tmp_path: Path, in_peace: list[dict[str, object]]) -> None:
    folder, rounds = tmp_path / "run", list[int]()
    more = ["federation.batches_per_reply=2"]
    with pytest.raises(stopping.Stopped), stopping.stopping_on_sigterm():
        federate(settings(folder, *more), folder, asking_in(0, rounds), resume=False)
    assert rounds == [0, 1]
    federate(noted_config(folder), folder, lambda config, report: rounds.append(report.round), resume=True)
    assert rounds == [0, 1, 2, 3]
    assert [row["loss"] for row in without_times(folder)] == [row["loss"] for row in in_peace]


def test_a_run_that_is_over_is_finished_and_no_other_begins(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(stopping.Stopped), stopping.stopping_on_sigterm():
        federate(settings(first), first, asking_in(3, []), resume=False)
        assert (first / SUMMARY).exists() and stopping.is_asked()
        federate(settings(second), second, asking_in(9, []), resume=False)
    assert not (second / "metrics.jsonl").exists()


def test_a_second_time_nothing_is_waited_for(tmp_path: Path) -> None:
    at_once: list[int] = []
    with pytest.raises(stopping.Stopped), stopping.stopping_on_sigterm(lambda: at_once.append(1)):
        federate(settings(tmp_path / "run"), tmp_path / "run", asking_in(1, [], times=2), resume=False)
    assert at_once == [1]


def test_outside_rounds_nothing_is_waited_for() -> None:
    at_once: list[int] = []
    with stopping.stopping_on_sigterm(lambda: at_once.append(len(at_once))):
        os.kill(os.getpid(), signal.SIGTERM)
        assert at_once == [0]
        with stopping.rounds():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert at_once == [0, 1]


def test_a_process_without_rounds_ends_at_once_with_143() -> None:
    program = (
        "import os, signal\n"
        "from fedmd.runs.stopping import stopping_on_sigterm\n"
        "with stopping_on_sigterm():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('went on')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (143, "") and "resume" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "ray"])
@pytest.mark.parametrize("command", ["run", "compare"])
def test_the_commands_end_with_143(engine: str, command: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    place = f"hydra.run.dir={folder}" if command == "run" else f"hydra.sweep.dir={folder}"
    more = [place, f"runtime.engine={engine}", "stream.clean_rounds=5000", f"runtime.cache_dir={tmp_path}"]
    left = set(Path("/dev/shm").iterdir())
    with subprocess.Popen(
        [FEDMD, command, "experiment=smoke", "runtime.device=cpu", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while not any(path.stat().st_size > 0 for path in folder.rglob("metrics.jsonl")):
                assert process.poll() is None, process.communicate()
                threading.Event().wait(0.1)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 143 and "resume" in err and "Traceback" not in err and "SIGTERM received" not in err
    assert list(folder.rglob(CHECKPOINT))
    assert not {path.name for path in set(Path("/dev/shm").iterdir()) - left if f"-{process.pid}-" in path.name}
