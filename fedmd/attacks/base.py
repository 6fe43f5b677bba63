"""What the members of one run know and share, and the shape every attack has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from fedmd.attacks.shared_cache import Blackboard
from fedmd.config import AttackConfig, RunConfig
from fedmd.data.clients import ClientStreams
from fedmd.types import ImageSet, Phase, StreamBatch


@dataclass(frozen=True)
class Team:
    """The malicious clients of one run.

    `own_data` is the attackers' validation data, which no other part of the run sees.
    """

    config: RunConfig
    streams: ClientStreams
    own_data: ImageSet
    blackboard: Blackboard
    members: tuple[int, ...]


# What a member sends instead of its honest batch, knowing the server's current model (which it must not change).
Move = Callable[[Team, StreamBatch, nn.Module], StreamBatch]


def whole_batch(attack: AttackConfig, samples: int) -> int:
    """Every one of a poisoned batch's `samples` is poisoned."""
    return samples


@dataclass(frozen=True)
class Attack:
    """`moves` by phase, members being honest in the others, and how many samples of a moved batch are `poisoned`.

    `looks_at_model`: whether the moves do, so that members must be sent it. The poisoned samples come first in the
    batch. A client's stream is in a seeded random order, so the first ones are a random choice, and whoever knows
    roster and schedule knows them.
    """

    moves: Mapping[Phase, Move]
    poisoned: Callable[[AttackConfig, int], int] = whole_batch
    looks_at_model: bool = True


def throughout(move: Move) -> dict[Phase, Move]:
    """The same move in the accumulative and in the trigger phase."""
    return {"accumulative": move, "trigger": move}
