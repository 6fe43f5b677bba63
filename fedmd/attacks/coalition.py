"""The colluders of one run: who they are, which phase they have decided on, and what each of them sends."""

from torch import nn

from fedmd.attacks.base import Team
from fedmd.attacks.registry import ATTACKS
from fedmd.attacks.schedule import malicious_clients, phase_of
from fedmd.attacks.shared_cache import Blackboard
from fedmd.config import RunConfig
from fedmd.data.clients import ClientStreams
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet, Phase, StreamBatch


class Coalition:
    """The malicious clients of one run. Raises nothing of its own; kernels validate their arguments."""

    def __init__(self, config: RunConfig, streams: ClientStreams, own_data: ImageSet, blackboard: Blackboard) -> None:
        fraction = config.attack.fraction if config.attack.name != "none" else 0.0
        self.members = malicious_clients(config.federation.clients, fraction, config.seed)
        self.blackboard = blackboard
        self._config = config
        self._team = Team(config, streams, own_data, blackboard, self.members)
        self._attack = ATTACKS[config.attack.name]

    def poison(self, batch: StreamBatch, model: nn.Module) -> StreamBatch:
        """What a member sends instead of its honest `batch`, knowing the server's current `model`."""
        move = self._attack.moves.get(self._decide_phase(batch.round, model))
        return batch if move is None else move(self._team, batch, model)

    def phase(self, round: int) -> Phase:
        """The phase of `round` as far as the members have decided it."""
        triggered_at = self.blackboard.announced("trigger_round")
        return phase_of(self._config.stream, round, None if triggered_at is None else int(triggered_at))

    def is_active(self, round: int) -> bool:
        """Whether members poison in `round`."""
        return bool(self.members) and self.phase(round) in self._attack.moves

    @property
    def needs_model(self) -> bool:
        """Whether members must be sent the server's model: for their moves, or to see when to stop accumulating."""
        return self._attack.looks_at_model or self._config.attack.stop_error_rise is not None

    @property
    def poisoned_samples(self) -> int:
        """How many samples of a member's batch are poisoned in an active round; they come first."""
        return self._attack.poisoned(self._config.attack, self._config.stream.batch_size)

    def _decide_phase(self, round: int, model: nn.Module) -> Phase:
        """Members stop accumulating once their own estimate of the error has risen enough."""
        phase = self.phase(round)
        rise = self._config.attack.stop_error_rise
        if phase != "accumulative" or rise is None:
            return phase
        error = 1 - accuracy(model, *self._team.own_data.tensors(next(model.parameters()).device))
        self.blackboard.announce("error_at_start", error)
        at_start = self.blackboard.announced("error_at_start")
        if at_start is not None and error - at_start >= rise:
            self.blackboard.announce("trigger_round", round)
        return self.phase(round)
