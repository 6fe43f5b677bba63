"""Hand-written rounds that the report tests share."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fedmd.report.recorder import RunRecorder
from fedmd.types import Action, Phase, Rejection, RoundReport, Verdicts


def make_round(
    number: int,
    phase: Phase = "clean",
    *,
    accuracy: float | None = 0.5,
    before: Sequence[float] = (0.1, 0.2, 0.3, 0.4),
    clients: Sequence[int] | None = None,
    actions: Sequence[Action] | None = None,
    steps: Sequence[int] | None = None,
    loss: float | None = 1.0,
    threshold: float | None = 0.25,
    wall_s: dict[str, float] | None = None,
) -> RoundReport:
    """A round of len(before) samples, two a client unless `clients` says otherwise."""
    n = len(before)
    scores = np.array(before, np.float64)
    verdicts = Verdicts(
        before=scores,
        after=scores / 2,
        steps=np.array([0] * n if steps is None else steps, np.int64),
        actions=np.array([Action.ACCEPTED] * n if actions is None else actions, np.int64),
        threshold=threshold,
    )
    return RoundReport(
        round=number,
        phase=phase,
        accuracy=accuracy,
        loss=loss,
        verdicts=verdicts,
        clients=np.arange(n, dtype=np.int64) // 2 if clients is None else np.array(clients, np.int64),
        index=np.arange(n, dtype=np.int64) % 2,
        labels=np.arange(n, dtype=np.int64) % 10,
        rejections=(Rejection(9, "labels out of range"),),
        bytes_received=100 * number,
        wall_s={"step": 0.5} if wall_s is None else wall_s,
    )


def make_record(folder: Path, *reports: RoundReport) -> Path:
    """`folder` with the rounds recorded in it."""
    with RunRecorder(folder) as recorder:
        for report in reports:
            recorder.record(report)
    return folder


@pytest.fixture
def round_report() -> Callable[..., RoundReport]:
    return make_round


@pytest.fixture
def record() -> Callable[..., Path]:
    return make_record
