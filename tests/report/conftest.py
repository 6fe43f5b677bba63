"""Hand-written rounds that the report tests share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmd.report.files import Truth, cell_folder, write_example_images, write_summary
from fedmd.report.recorder import RunRecorder
from fedmd.report.statistics.comparison import ArmInfo, compare
from fedmd.report.summary import summarise
from fedmd.storage import read_json, write_json
from fedmd.types import Action, Drift, ExampleImages, Json, Phase, Rejection, RoundReport, Verdicts

NATS = {
    "discrepancy": "Memorization discrepancy",
    "historical_loss": "Historical loss",
    "current_loss": "Current loss",
}
PLAIN = {
    "confidence": "Lack of confidence",
    "lid": "Local intrinsic dimensionality",
    "mahalanobis": "Mahalanobis distance",
}


def make_scores(held: str = "discrepancy", *, judges: bool = True) -> Json:
    """What `fedmd.defense.base.score_labels` says of a run."""
    nats = {name: {"label": label, "unit": "nats"} for name, label in NATS.items()}
    return {
        "held": held,
        "judges": judges,
        "detectors": nats | {name: {"label": label, "unit": ""} for name, label in PLAIN.items()},
    }


@pytest.fixture(scope="session")
def scores() -> Callable[..., Json]:
    return make_scores


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
    discrepancy: Sequence[float] | None = None,
    attack_success: float | None = None,
    baselines: dict[str, Sequence[float]] | None = None,
    drift: Drift | None = None,
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
        discrepancy=None if discrepancy is None else np.array(discrepancy, np.float64),
        baselines={name: np.array(values, np.float64) for name, values in (baselines or {}).items()},
        drift=drift,
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
        attack_success=attack_success,
    )


def make_record(folder: Path, *reports: RoundReport) -> Path:
    """`folder` with the rounds recorded in it."""
    with RunRecorder(folder, list(reports[0].verdicts.baselines) if reports else ()) as recorder:
        for report in reports:
            recorder.record(report)
    return folder


@pytest.fixture
def round_report() -> Callable[..., RoundReport]:
    return make_round


@pytest.fixture
def record() -> Callable[..., Path]:
    return make_record


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    defense: str = "dsc",
    malicious: tuple[int, ...] = (1,),
    rounds: int = 6,
    attack_success: float | None = None,
) -> Path:
    """A finished run of random numbers with example images: 5 clients, 4 samples each, rounds 2 and 3 poisoned.

    `attack_success` is that of every round. Under another detector than the discrepancy, the discrepancy is the
    negative of its score.
    """
    detector = (config or {}).get("defense", {}).get("detector", "discrepancy")
    rng = np.random.default_rng(seed)
    truth = Truth(malicious, (2, 3) if malicious else ())
    clients = np.repeat(np.arange(5), 4)
    phases: list[Phase] = ["clean", "clean", "accumulative", "trigger", *["recovery"] * (rounds - 4)]
    reports = []
    for number, phase in enumerate(phases):
        before = rng.lognormal(0, 1, 20) * np.where(truth.mask(np.full(20, number), clients, np.arange(20)), 8, 1)
        other = None if detector == "discrepancy" else -before
        accuracy = rng.uniform()
        reports.append(
            make_round(
                number,
                phase,
                before=before,
                clients=clients,
                accuracy=accuracy,
                threshold=3.0,
                discrepancy=other,
                attack_success=attack_success,
            )
        )
    make_record(folder, *reports)
    truth.write(folder)
    images = rng.integers(0, 256, (4, 1, 12, 12), np.uint8)
    if malicious:
        write_example_images(folder, ExampleImages(images, images[::-1].copy(), images))
    summary = summarise(
        folder,
        truth=truth,
        burn_in_accuracy=0.5,
        defense_name=defense,
        scores=make_scores(detector),
        n_clients=5,
        wall_s={"total": 1.0},
        seed=seed,
        config={"seed": seed, "data": {"name": "digits"}, "attack": {"name": "accumulative"}} | (config or {}),
        versions={"python": "3.11", "fedmd": "0.1.0"},
    )
    write_summary(folder, summary)
    return folder


def make_comparison(folder: Path, arms: dict[str, ArmInfo], seeds: Sequence[int] = (0, 1)) -> Path:
    """A finished study whose cells are runs of make_run."""
    summaries: dict[str, dict[int, Json]] = {}
    for arm, info in arms.items():
        for seed in seeds:
            cell = make_run(cell_folder(folder, arm, seed), seed=seed, malicious=(1,) if info.attacked else ())
            summaries.setdefault(arm, {})[seed] = read_json(cell / "summary.json")
    write_json(folder / "comparison.json", compare(summaries, arms))
    return folder


@pytest.fixture(scope="session")
def run_folder() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def comparison_folder() -> Callable[..., Path]:
    return make_comparison
