"""What every attack is, and what its members know and share."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from fedmd.attacks.shared_cache import SharedCache
from fedmd.config import UPDATE_ONLY, RunConfig, Section
from fedmd.data.clients import ClientStreams, LocalData, sample_clients
from fedmd.registry import Plugin
from fedmd.types import ImageSet, Phase, StreamBatch

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Team:
    """The malicious clients of one run, `members` in the order of their ids, and what they share.

    `streams` are what clients send in mode=stream, `local` what they train on in mode=update. `own_data` is the
    attackers' validation data, which no other part of the run sees. `cache` holds what is computed once for all.
    """

    config: RunConfig
    streams: ClientStreams
    local: LocalData
    own_data: ImageSet
    cache: SharedCache
    members: tuple[int, ...]

    def includes(self, client: int) -> bool:
        """Whether `client` is a member."""
        place = bisect_left(self.members, client)
        return self.members[place : place + 1] == (client,)

    def asked(self, round: int) -> tuple[int, ...]:
        """The members whom the server asks in `round`, by id: what a round costs depends on these, not on all."""
        return tuple(client for client in sample_clients(self.config, round) if self.includes(client))


@dataclass(frozen=True)
class Situation:
    """The round of mode=update a member is in: `model` to work with (any weights), and the server's state `start`."""

    round: int
    model: nn.Module
    start: State
    proximal_mu: float = 0.0


@dataclass(frozen=True)
class Knowledge:
    """What one malicious client knows when it makes its update, in `situation` and `phase`.

    An update Δ is a weight difference, to be added to the server's θ; a gradient of the papers is −Δ up to a factor.

    own: Δ of its own training [d]: honest, or on data that `Attack.poison_data` changed.
    honest: updates it can see [n, d], as they would be sent honestly: see `Attack.sees`.
    clients, colluders: how many clients were sampled this round, and how many of them are malicious.
    generator: the source of noise, a CPU generator of this client and round.

    Raises:
        ValueError: shapes or counts do not fit together.
    """

    own: Tensor
    honest: Tensor
    clients: int
    colluders: int
    generator: torch.Generator
    phase: Phase
    situation: Situation

    def __post_init__(self) -> None:
        if self.honest.dim() != 2 or not len(self.honest) or self.honest.shape[1:] != self.own.shape:
            raise ValueError(
                f"honest must be [n, d] beside own [d], got {list(self.honest.shape)}, {list(self.own.shape)}"
            )
        if not 1 <= self.colluders <= self.clients:
            raise ValueError(f"colluders must be between 1 and clients, got {self.colluders} of {self.clients}")


class SeesUpdates(Section):
    """Params of an attack that is made from the updates of others."""

    knowledge: Annotated[Literal["own", "all"], UPDATE_ONLY] = Field(
        "own", description="own: they see the colluders' updates; all: everybody's"
    )


class Attack(Plugin):
    """What malicious clients do in the rounds of its `phases`; they are honest in the others.

    An attack of mode=stream has `poison`, one of mode=update `update`. `needs_model`: whether `poison` looks at the
    server's model, so that members must be sent it.
    """

    phases: ClassVar[tuple[Phase, ...]] = ("accumulative", "trigger")
    needs_model: ClassVar[bool] = False

    @classmethod
    def check_run(cls, params: Any, run: Any) -> None:
        """Only who accumulates can stop doing so; of somebody who never acts nothing is asked."""
        if run.attack.stop_error_rise is not None and cls.phases and "accumulative" not in cls.phases:
            raise ValueError(
                f"attack.stop_error_rise must be null for name={run.attack.name}, which does not accumulate"
            )

    @classmethod
    def shared_settings(cls, of_the_kind: Sequence[str]) -> Sequence[str]:
        """When to stop accumulating concerns only those who do, in mode=stream."""
        stops = "stream" in cls.modes and "accumulative" in cls.phases
        return [key for key in of_the_kind if stops or key != "stop_error_rise"]

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: nn.Module) -> StreamBatch:
        """What a member sends instead of its honest `batch`. The server's current `model` must not be changed.

        Poisoned samples come first in the batch. A client's stream is in a seeded random order, so the first ones are a
        random choice.
        """
        raise NotImplementedError(f"{type(self).__name__} has no poison for mode=stream")

    @property
    def watches(self) -> bool:
        """Whether members look at the models that they are sent in rounds in which they are honest, see `watch`."""
        return False

    def watch(self, team: Team, round: int, model: nn.Module) -> None:
        """Take note of the server's `model` in an honest round of mode=stream. It must not be changed."""

    def poisoned_samples(self, samples: int) -> int:
        """How many of a poisoned batch's `samples` are poisoned."""
        return samples

    def forward_passes(self, config: RunConfig, own: int) -> float:
        """What crafting costs in a whole run, roughly: so many samples through the model; `own` are the attackers'.

        It decides where a run is computed, and no number of it.
        """
        return 0.0

    def poison_data(self, own: ImageSet) -> ImageSet:
        """What a member does to its local data before it trains on it, in mode=update."""
        return own

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """What a member sends in place of its honest update: Δ [d]. What it is given must not be changed."""
        raise NotImplementedError(f"{type(self).__name__} has no update for mode=update")

    def buffers(self, team: Team, known: Knowledge) -> State | None:
        """The buffers that go with `update`, by name; None: as the member's honest training leaves them."""
        return None

    @property
    def sees(self) -> Literal["self", "own", "all"]:
        """Whose updates `Knowledge.honest` holds: the member's alone, all colluders' (own), all clients'.

        It is the parameter `knowledge` where there is one, see `SeesUpdates`.
        """
        return getattr(self.params, "knowledge", "self")

    def check(self, images: ImageSet) -> None:
        """Raise ConfigError naming the setting that does not fit a run's `images`."""

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError naming the setting that does not fit a run's `model`."""

    def success_test(self, test: ImageSet) -> ImageSet | None:
        """The test images, changed and labelled so that a model's accuracy on them is the attack's success rate.

        None for an attack whose success is the accuracy lost.
        """
        return None


def attack_of(config: RunConfig) -> Attack:
    """The attack that a run's configuration chose."""
    return cast(Attack, config.attack.make())
