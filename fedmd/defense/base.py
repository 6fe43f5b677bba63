"""What every defence is, and what one of mode=stream is given and returns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fedmd.config import Mode, RunConfig
from fedmd.defense.history import State
from fedmd.defense.samples.detectors.base import Detector, Score
from fedmd.defense.samples.detectors.model_scores import Discrepancy
from fedmd.defense.samples.outputs import TrustedSamples
from fedmd.defense.samples.pooling import Stopping
from fedmd.defense.updates.screen import UpdateScreen
from fedmd.registry import DETECTORS, Plugin
from fedmd.types import Action, Json

LIMIT_FACTOR = "limit_factor"  # the score of mode=update: how far an update is beyond its limits, acted upon above 1


@dataclass(frozen=True)
class ScoredBatch:
    """A batch as a defence sees it: `x` [N, C, H, W], `y` [N], the score `before` [N], and who is `suspicious` [N].

    `clients` [N] are the senders, None where the caller knows of none. `trusted` gives the trusted set. `detector` and
    `stopping` are what `before` was measured with, and over what it was averaged to be held against `threshold`.
    """

    current: nn.Module
    historical: nn.Module
    x: Tensor
    y: Tensor
    before: Tensor
    suspicious: Tensor
    threshold: float
    clients: Tensor | None
    trusted: Callable[[], TrustedSamples] | None
    detector: Score
    stopping: Stopping


@dataclass(frozen=True)
class Decision:
    """What becomes of N samples: the new `x`, Action values [N], steps [N], the score `after` [N]."""

    x: Tensor
    actions: Tensor
    steps: Tensor
    after: Tensor

    @classmethod
    def for_all(cls, batch: ScoredBatch, action: Action) -> "Decision":
        """The same `action` on every sample, which stays as it is."""
        actions = torch.full((len(batch.x),), action, dtype=torch.int64, device=batch.x.device)
        return cls(batch.x, actions, torch.zeros_like(actions), batch.before)


class Defense(Plugin):
    """What is done before the server learns. One of mode=stream has `decide`, one of mode=update `build_screen`.

    uses_threshold: it acts on `ScoredBatch.suspicious`, so that what a threshold promises of clean traffic is watched.
    uses_score: it acts on `ScoredBatch.before` itself. Reports say of either that the defence goes by its detector.
    screens_updates: in mode=update it measures every update, of which evidence against clients can be made.
    companions: the options of `threshold` and `history` that come with it, unless others are chosen.
    """

    modes: ClassVar[tuple[Mode, ...]] = ("stream",)
    uses_threshold: ClassVar[bool] = False
    uses_score: ClassVar[bool] = False
    screens_updates: ClassVar[bool] = False
    companions: ClassVar[Mapping[str, str]] = {}

    @property
    def clip_norm(self) -> float | None:
        """The norm that the gradient of the server's step is clipped to, in mode=stream; None: it is not."""
        return None

    def decide(self, batch: ScoredBatch) -> Decision:
        """What to learn from; the models must not be changed."""
        raise NotImplementedError(f"{type(self).__name__} has no decide for mode=stream")

    def build_screen(
        self, run: RunConfig, net: nn.Module, trusted: tuple[Tensor, Tensor], snapshots: Sequence[State]
    ) -> UpdateScreen | None:
        """What measures the updates of `net` in `run`; None: nobody does.

        `trusted` are the server's images [n, C, H, W] and labels [n], `snapshots` the states after each epoch of
        burn-in.
        """
        return None


def defense_of(run: RunConfig) -> Defense:
    """The defence that a run's configuration chose."""
    defense: Defense = run.defense.make()
    return defense


def score_labels(run: RunConfig, baselines: Iterable[str]) -> Json:
    """What the scores of a run are called, the detectors `baselines` among them: the `scores` of its summary.

    Reports, which know no plug-in, go by it: see `fedmd.report.scores`.
    """
    detectors: list[type[Detector]] = [Discrepancy]
    detectors += [cast(type[Detector], DETECTORS.resolve(name)) for name in baselines]
    if run.mode == "stream":
        detectors.append(type(run.defense.make_slot("detector")))
    known = {each.name: {"label": each.label, "unit": each.unit} for each in detectors}
    if run.mode == "update":
        known[LIMIT_FACTOR] = {"label": "Score over its limit", "unit": "factor"}
    acts = defense_of(run)
    return {
        "held": LIMIT_FACTOR if run.mode == "update" else detectors[-1].name,
        "judges": acts.uses_threshold or acts.uses_score or acts.screens_updates,
        "detectors": known,
    }
