"""TensorBoard event files, written while the run goes on; needs the optional package tensorboard."""

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedmd.report.recorder import discrepancy_statistics, round_metrics
from fedmd.types import RoundReport

FOLDER = "tensorboard"  # inside the run folder


def tensorboard_is_installed() -> bool:
    """Whether EventWriter can write."""
    return find_spec("tensorboard") is not None


class EventWriter:
    """Scalars of every round under `folder`/tensorboard, on disk as each round ends.

    Written by a run that starts again at round r, they replace what an earlier one left there from r on.

        with EventWriter(folder) as events:
            events.record(report)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._writer: Any = None  # torch's SummaryWriter

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def record(self, report: RoundReport) -> None:
        """Append one round; what is undefined in it is left out."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # imports tensorboard

            self._writer = SummaryWriter(str(self.folder), purge_step=report.round)
        for name, value in round_scalars(report).items():
            self._writer.add_scalar(name, value, report.round)
        self._writer.flush()


def round_scalars(report: RoundReport) -> dict[str, float]:
    """Accuracy, attack success, loss, mean discrepancy (nats), corrected and rejected share, the threshold, if defined.

    Beside another detector's threshold stands that detector's mean, both under `detector/`.
    """
    metrics = round_metrics(report)
    threshold = {"discrepancy/threshold": metrics["threshold"]}
    if report.verdicts.discrepancy is not None:
        mean = discrepancy_statistics(report.verdicts.before)["mean"]
        threshold = {"detector/mean": mean, "detector/threshold": metrics["threshold"]}
    scalars = {
        "accuracy": metrics["accuracy"],
        "attack_success": metrics["attack_success"],
        "loss": metrics["loss"],
        "discrepancy/mean": metrics["discrepancy"]["mean"],
        **threshold,
        "share/corrected": metrics["corrected_share"],
        "share/rejected": metrics["rejected_share"],
    }
    return {name: value for name, value in scalars.items() if value is not None}
