"""What a mode has to fill in, and where messages come from."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from fedmd.defense.evidence import Ranks
from fedmd.rounds.model import ServerModel
from fedmd.rounds.records import Collected, Judged, Learned, M, Unit
from fedmd.storage import Saved


class Collect(Protocol[M]):
    """Asks `clients` for their message of `round`; those that subscribe to the model are given `model`."""

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected[M]:
        """What came of it."""


class Server(Protocol[M]):
    """One model that keeps learning, by samples (`stream.py`) or by model updates (`update.py`).

    `version` counts how often it has moved since burn-in; `unit` is what verdicts are on; `baselines` are the detectors
    whose scores the verdicts have besides.
    """

    @property
    def model(self) -> ServerModel:
        """The model that learns."""

    @property
    def unit(self) -> Unit:
        """What there is one verdict on."""

    @property
    def baselines(self) -> Sequence[str]:
        """The detectors in the report besides."""

    @property
    def version(self) -> int:
        """How often the model has moved."""

    def judge(self, messages: tuple[M, ...]) -> Judged[M]:
        """The defence's verdict on every unit of `messages`; the model stays as it is."""

    def evidence(self, judged: Judged[M]) -> Ranks | None:
        """The N units' scores, ranked among honest ones; None where none is measured or one is no number."""

    def without(self, judged: Judged[M], clients: frozenset[int]) -> Judged[M]:
        """`judged` with everything of `clients` rejected."""

    def tensors(self, message: M) -> dict[str, Tensor]:
        """What is kept of a message of a client in quarantine."""

    def learn(self, judged: Judged[M]) -> Learned:
        """Move the model by what was not rejected."""

    def state(self) -> Saved:
        """What `restore` needs to go on from here."""

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
