"""Make the pictures of the docs from the present code: python docs/images/make.py FOLDER

In FOLDER it makes, where they are not there yet, a run and README's sweep (half a minute each), and beside this file
terminal.svg, the display in mid-run; live.png, `fedmd watch --serve` on the run; run-report.png and sweep-report.png.
Needs Chromium.
"""

import io
import re
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # tests/ is no installed package

from rich.console import Console

from fedmd.report.files import read_summary
from fedmd.report.monitoring.board import Board
from fedmd.runs.cell import Cell, Watcher
from fedmd.types import RoundReport, Stage
from fedmd.watch.follow import Follower
from fedmd.watch.serve import Pages, PageServer
from tests.browser import Browser

HERE = Path(__file__).parent
RUN = ["run", "attack.fraction=0.3", "defense=recommended", "quarantine=evidence", "runtime.evaluate_every=1"]
SWEEP = ["run", "-m", "experiment=smoke", "attack.fraction=0,0.25,0.5", "defense=none,recommended", "seed=0,1"]
SHOWN_ROUNDS = 20
WIDTH, HEIGHT = 1012, 1200
COLUMNS = 96


class MidRun(Watcher):
    """Fills a board with a run's first rounds, and draws it after the last of these."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board, self._console = board, console

    def stage(self, cell: Cell, stage: Stage) -> None:
        """Into the board."""
        self._board.stage(cell.name, cell.config.stream.rounds, stage)

    def round(self, cell: Cell, report: RoundReport) -> None:
        """Into the board, as far as the picture goes."""
        if report.round < SHOWN_ROUNDS:
            self._board.round(cell.name, cell.config.stream.rounds, report)
        if report.round == SHOWN_ROUNDS - 1:
            self._console.print(self._board)


def terminal(run: Path) -> None:
    """The display of the run after its first rounds, as SVG."""
    follower = Follower(run)
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    follower.look(MidRun(Board(f"fedmd {' '.join(RUN)}", follower.clock), console))
    fetched = re.compile(r" *@font-face \{.*?\}\n", re.S)  # a font from a server; the reader's own will do
    picture = fetched.sub("", console.export_svg(title="fedmd")).replace("Fira Code", "ui-monospace")
    (HERE / "terminal.svg").write_text(picture)


def pages(run: Path, sweep: Path) -> None:
    """The reports and the live page, as PNG."""
    with Browser() as browser, PageServer("127.0.0.1", 0, Pages(run)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, page in (
            ("run-report", run / "report.html"),
            ("sweep-report", sweep / "report.html"),
            ("live", server.url),
        ):
            browser.open(page, WIDTH, height=HEIGHT)
            browser.screenshot(HERE / f"{name}.png", HEIGHT)
        server.shutdown()


def main(folder: Path) -> None:
    """All of them."""
    run, sweep = folder / "run", folder / "sweep"
    for command, made, key in ((RUN, run, "hydra.run.dir"), (SWEEP, sweep, "hydra.sweep.dir")):
        if read_summary(made) is None and not (made / "report.html").exists():
            subprocess.run([sys.executable, "-m", "fedmd", *command, f"{key}={made}"], check=True)
    terminal(run)
    pages(run, sweep)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
