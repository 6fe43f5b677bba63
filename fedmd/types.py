"""The frozen records that rooms hand each other. No Flower, no Hydra, no behaviour beyond derived values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a deployed client that only sends samples starts in a quarter of the time without it
    import torch

Phase = Literal["clean", "accumulative", "trigger", "recovery"]
PHASES: tuple[Phase, ...] = ("clean", "accumulative", "trigger", "recovery")


class Action(IntEnum):
    """What the defence did with one sample."""

    ACCEPTED = 0  # learned from exactly as it arrived
    CORRECTED = 1  # changed first, then learned from
    REJECTED = 2  # not learned from


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels: `images` uint8 [N, C, H, W], `labels` int64 [N] in [0, classes)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> ImageSet:
        """The subset at `indices`, in that order."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def tensors(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """`x` float32 [N, C, H, W] in [0, 1] and `y` int64 [N] on `device`."""
        import torch

        x, y = (torch.from_numpy(np.ascontiguousarray(array)) for array in (self.images, self.labels))
        if torch.device(device).type == "cuda":  # from pinned memory the copies do not wait for each other
            x, y = x.pin_memory(), y.pin_memory()
        return x.to(device, non_blocking=True).float().div_(255), y.to(device, non_blocking=True)


@dataclass(frozen=True)
class StreamBatch:
    """What one client sent in one round, after validation: uint8 images [n, C, H, W], int64 labels [n].

    `content` is the SHA-256 of the bytes it came as, where it came over a wire.
    """

    client: int
    round: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    content: str | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Drift:
    """The share of judgements above a calibrated threshold, which is not the one it promised on clean traffic."""

    rate: float
    promised: float


@dataclass(frozen=True)
class Canary:
    """What one virtual step on trusted data changes (nats), see `fedmd.defense.updates.canary`; whether it alarms."""

    value: float
    alarm: bool


@dataclass(frozen=True)
class Verdicts:
    """One verdict per sample of a screened batch; every array has shape [N], in the order of the batch.

    `before` and `after` are the detector's score of the sample as it arrived and as it was learned from; NaN where a
    defence does not measure it. The score is the discrepancy (nats), unless the defence uses another detector, with a
    unit of its own: then `discrepancy` holds that too; of an update it is the factor by which it is beyond its limits.
    `steps` counts correction steps. `threshold` is the score's, as in force.
    `baselines` are the scores [N] of other detectors by name, for the report; NaN where one has nothing to look at.
    `drift` is set while the latest rounds break the threshold's promise; `canary` where the server looks out for
    accumulation, in mode=update.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    steps: NDArray[np.int64]
    actions: NDArray[np.int64]  # values of Action
    threshold: float | None
    discrepancy: NDArray[np.float64] | None = None
    baselines: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    drift: Drift | None = None
    canary: Canary | None = None

    def share(self, action: Action) -> float:
        """Share of the samples that got `action`; 0 for an empty batch."""
        return float(np.mean(self.actions == action)) if len(self.actions) else 0.0


@dataclass(frozen=True)
class Screened:
    """What a defence hands the training step: `x` [M, C, H, W] and `y` [M], M <= N, and N verdicts."""

    x: torch.Tensor
    y: torch.Tensor
    verdicts: Verdicts


IN_QUARANTINE = "in quarantine since round "  # so begins the reason, and ends with the round


@dataclass(frozen=True)
class Rejection:
    """A client's message (or its absence) that the server did not use, and why; `content` as of a StreamBatch.

    `exceeds_bounds`: it was more than may be sent, so that nobody looked at what it is; that counts against the client.
    """

    client: int
    reason: str
    content: str | None = None
    exceeds_bounds: bool = False

    @property
    def quarantined_since(self) -> int | None:
        """The round from which on its client is in quarantine, if that is the reason."""
        since = self.reason.removeprefix(IN_QUARANTINE)
        return int(since) if since != self.reason and since.isdecimal() else None


@dataclass(frozen=True)
class RefusedNode:
    """A node that was not let in, and why; `key` is its key's fingerprint, where nodes have keys."""

    reason: str
    key: str | None = None


@dataclass(frozen=True)
class RoundReport:
    """Everything that is known after a round. `accuracy` is None in a round without an evaluation.

    `clients` [N] and `index` [N] name the samples behind `verdicts` (client id, position in its batch), so
    (round, client, index) is a sample's id. `labels` [N] are the labels the clients claimed.
    `attack_success` is the share of stamped test images that the model takes for a backdoor's target, evaluated with
    the accuracy; None under other attacks. `wall_s` maps stage name to seconds; it is the only part that may differ
    between two runs of one seed. `quarantined` are the clients whose messages were kept aside; each is among the
    rejections too. `alarms` are those of them that were not in quarantine before. `trusted_accuracy` is that on the
    server's trusted set, measured with the accuracy for whoever watches the server live; None elsewhere. `undone` says
    why the model is as it was before the round, where what was learned was not usable. `audit_head` is the last record
    of the audit trail, and its hash. `attack` are numbers that simulated colluders noted, for the report only, such as
    the similarity S of eq (4).
    """

    round: int
    phase: Phase
    accuracy: float | None
    loss: float | None
    verdicts: Verdicts
    clients: NDArray[np.int64]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    rejections: tuple[Rejection, ...]
    bytes_received: int
    wall_s: dict[str, float] = field(default_factory=dict)
    attack_success: float | None = None
    quarantined: tuple[int, ...] = ()
    alarms: tuple[int, ...] = ()
    trusted_accuracy: float | None = None
    undone: str | None = None
    audit_head: tuple[int, str] | None = None
    attack: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """What a run does before its first round, in words, and how many of its steps are done (of 0: it has none)."""

    name: str
    done: int = 0
    steps: int = 0


@dataclass(frozen=True)
class ExampleImages:
    """A few images for the eye, uint8 [n, C, H, W] each: as the client held them, as sent, as learned from."""

    clean: NDArray[np.uint8]
    poisoned: NDArray[np.uint8]
    corrected: NDArray[np.uint8]


Json = dict[str, Any]
