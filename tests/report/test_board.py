"""What the terminal shows, rendered at any width, with a clock that stands still."""

from pathlib import Path

import pytest
from rich.console import Console

from fedmd.config import RunConfig
from fedmd.report.monitoring.board import Board, duration, sparkline
from fedmd.runs.cell import Cell, Failure
from fedmd.runs.progress import Display, Lines, watching
from fedmd.types import Stage

SUMMARY = {"accuracy": {"final": 0.912}}


class Clock:
    """Moves when it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def drawn(board: Board, width: int, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, color_system=None, legacy_windows=False, _environ={})
    with console.capture() as captured:
        console.print(board)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def one(clock, round_report) -> Board:
    """Ten of 24 rounds are over, two seconds each."""
    board = Board("fedmd run attack.fraction=0.2", clock)
    board.begin(["run"], 0)
    for done in range(3):
        board.stage("run", 24, Stage("burn-in", done, 2))
        clock.now += 5
    for number in range(10):
        clock.now += 2
        board.round("run", 24, round_report(number, "accumulative", accuracy=None if number % 2 else number / 10))
    return board


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_run_fits_any_width(one: Board, width: int) -> None:
    lines = drawn(one, width)
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("fedmd run") and lines[0].endswith("0:35")
    assert [line.split()[0] for line in lines[1:4]] == ["rounds", "accuracy", "samples"]
    assert any("accumulative 10/24" in line for line in lines)
    assert any("▁" in line and "80.0 %" in line for line in lines)
    if width >= 80:
        assert any("2.5 s a round, 0:35 to go" in line for line in lines)  # the first took 5 s more, since burn-in
        assert any("corrected" in line and "last of client" in line for line in lines)


def test_burn_in_is_shown_before_the_rounds(clock: Clock) -> None:
    board = Board("fedmd run", clock)
    assert "loading libraries" in drawn(board, 80)[1]
    board.begin(["run"], 0)
    board.doing = "checking settings and data"
    assert "checking settings and data" in drawn(board, 80)[1]
    board.stage("run", 24, Stage("burn-in", 1, 3))
    assert "burn-in 1/3" in drawn(board, 80)[1]


@pytest.fixture
def several(clock, round_report) -> Board:
    """Of ten runs three had finished; now one has finished, one was given up, and five are running."""
    board = Board("fedmd compare experiment=demo", clock)
    board.begin([f"an arm with quite a long label {number}, seed 0" for number in range(7)], 3)
    for number in range(7):
        board.stage(f"an arm with quite a long label {number}, seed 0", 4, Stage("data"))
    clock.now += 30
    for number in range(5):
        board.round(f"an arm with quite a long label {number}, seed 0", 4, round_report(0, accuracy=0.75))
    board.over("an arm with quite a long label 0, seed 0", failed=False)
    board.over("an arm with quite a long label 1, seed 0", failed=True, again=False)
    return board


@pytest.mark.parametrize("width", [60, 80, 120])
def test_several_runs_fit_any_width(several: Board, width: int) -> None:
    lines = drawn(several, width)
    assert all(len(line) <= width for line in lines) and len(lines) == 6
    assert lines[0].startswith("4 of 10 done, 5 running, 1 failed")
    assert lines[0].endswith("0:30, 0:46 to go")  # 2 and 3/4 of 7 in 30 s
    assert all("clean 1/4" in line and line.endswith("75.0 %") for line in lines[1:4])
    assert all("data" in line for line in lines[4:])


def test_what_does_not_fit_the_height_is_counted(several: Board) -> None:
    lines = drawn(several, 80, height=6)
    assert len(lines) == 4 and lines[-1].strip() == "and 3 more"


def test_a_run_that_is_tried_again_is_running_still(several: Board) -> None:
    several.over("an arm with quite a long label 2, seed 0", failed=True, again=True)
    assert "4 running, 1 failed" in drawn(several, 120)[0] and not several.is_over


def test_sparklines_and_durations() -> None:
    assert sparkline([0, 0.5, 1], 10) == "▁▅█"
    assert sparkline([0, 0.5, 1], 2) == "▁█"
    assert sparkline([0.9, 0.91, 0.92], 10) == "▁▂▄"  # two points are no abyss
    assert [duration(seconds) for seconds in (0.4, 59.6, 750, 11100)] == ["0:00", "1:00", "12:30", "3:05:00"]


# -- who shows it --------------------------------------------------------------------------------------------------


@pytest.fixture
def cells(make_config, tmp_path: Path) -> list[Cell]:
    config: RunConfig = make_config()
    return [Cell(config, tmp_path / name, label=name) for name in ("one [1]", "two")]


def terminal(**kind: object) -> Console:
    return Console(width=80, height=24, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"}, **kind)


def test_the_display_tells_the_runs_and_ends_with_the_last(cells, clock, round_report, capsys) -> None:
    with Display("fedmd compare", terminal(color_system=None), clock) as display:
        display.doing("starting Ray")
        display.begin(cells, 0)
        display.stage(cells[0], Stage("data"))
        display.round(cells[0], round_report(0))
        clock.now += 3
        display.failed(Failure(cells[1], "its process died"), again=True)
        display.finished(cells[0], SUMMARY)
        display.finished(cells[1], SUMMARY)
        display.say("| a table |")
    told = capsys.readouterr().out
    assert "[  1/2] one [1]" in told and "final  91.2 %     3.0 s" in told
    assert "two failed, its process died; it is tried once more" in told.replace("\n", " ")
    assert told.rstrip().endswith("| a table |")  # below what was drawn last
    assert "\x1b[?25h" in told  # the cursor is there again


def test_lines_where_there_is_no_terminal(cells, clock, round_report, capsys) -> None:
    lines = Lines(clock)
    lines.begin(cells, 3)
    lines.stage(cells[0], Stage("burn-in", 1, 2))
    assert capsys.readouterr().out == ""
    clock.now += 6
    lines.round(cells[1], round_report(0, "clean", accuracy=0.5))
    assert capsys.readouterr().out == "running: one [1]: burn-in 1/2; two: clean 1/6\n"
    lines.finished(cells[0], SUMMARY)
    lines.failed(Failure(cells[1], "it broke"), again=False)
    told = capsys.readouterr()
    assert told.out == f"[  4/5] {'one [1]':<32} final  91.2 %     6.0 s\n"
    assert told.err == "fedmd: two failed, it broke; it is given up, the others go on.\n"


@pytest.mark.parametrize(
    ("quiet", "live", "tty", "told"),
    [(True, True, True, ""), (False, True, True, "\x1b["), (False, False, True, "hello\n")],
)
def test_who_watches(quiet: bool, live: bool, tty: bool, told: str, capsys) -> None:
    with watching("title", quiet=quiet, live=live, console=terminal() if tty else Console()) as watcher:
        watcher.say("hello")
    found = capsys.readouterr().out
    assert found == told if told != "\x1b[" else told in found and "hello" in found


def test_a_run_alone_says_a_line_a_round(cells, clock, round_report, capsys) -> None:
    lines = Lines(clock)
    lines.begin(cells[:1], 0)
    lines.stage(cells[0], Stage("burn-in", 1, 2))
    lines.round(cells[0], round_report(0))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "burn-in 1/2" and second.startswith("[  1/6] round   0  clean")
