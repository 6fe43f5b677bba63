"""A run of three rounds that is being written, as a server leaves it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fedmd.report.recorder import round_metrics
from fedmd.report.verdicts import verdict_table, write_part
from fedmd.rounds.folder import note_config, sole_server
from fedmd.runs.compose import compose
from fedmd.types import IN_QUARANTINE, Action, Rejection, RoundReport, Verdicts

CONFIG = compose(["experiment=smoke", "defense=drop", "quarantine=evidence"]).config
HOSTILE = "<script>document.title='broken'</script>"


def report(number: int) -> RoundReport:
    """Clients 0 to 3 send two samples each; those of client 3 are rejected, and from round 1 on kept aside."""
    clients = np.repeat(np.arange(4 if number < 2 else 3), 2)
    n = len(clients)
    rejections = [Rejection(1, HOSTILE)] if number == 1 else []
    if number >= 1:
        rejections.append(Rejection(3, f"{IN_QUARANTINE}1"))
    return RoundReport(
        round=number,
        phase=("clean", "accumulative", "trigger", "recovery")[number],
        accuracy=None if number == 2 else 0.5 + 0.1 * number,
        loss=1.0,
        verdicts=Verdicts(
            before=np.linspace(0.1, 0.8, n),
            after=np.linspace(0.1, 0.8, n),
            steps=np.zeros(n, np.int64),
            actions=np.where(clients == 3, Action.REJECTED, Action.ACCEPTED).astype(np.int64),
            threshold=0.5,
        ),
        clients=clients,
        index=np.arange(n) % 2,
        labels=np.zeros(n, np.int64),
        rejections=tuple(rejections),
        bytes_received=100,
        wall_s={"transport": 0.5, "step": 0.25, "attack": 0.4},
        quarantined=(3,) if number >= 1 else (),
    )


class Writing:
    """A server that writes a run in `folder`, a round when it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = 0
        note_config(folder, CONFIG)

    def round(self) -> None:
        """The next round ends; then half of a line is written."""
        made = report(self.done)
        write_part(self.folder, self.done, verdict_table(made))
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines()[: self.done] if path.exists() else []
        path.write_text("\n".join([*lines, json.dumps(round_metrics(made)), '{"round": ']))
        self.done += 1

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Its server works there."""
        with sole_server(self.folder):
            yield


@pytest.fixture
def writing(tmp_path: Path) -> Writing:
    """Three rounds are over."""
    run = Writing(tmp_path / "run")
    for _ in range(3):
        run.round()
    return run
