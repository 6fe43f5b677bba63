"""The colluders of one run: who they are, which phase they have decided on, and what each of them sends.

Everything here is a function of the run's configuration, the data and the models the server published. What is
expensive is computed once and shared through the cache: in mode=update the first member to need a round's honest
updates trains them all, and nobody waits for a message from anybody.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fedmd.attacks.base import Attack, Knowledge, Situation, State, Team, attack_of
from fedmd.attacks.schedule import malicious_clients, phase_of
from fedmd.attacks.shared_cache import SharedCache
from fedmd.attacks.vectors import flatten, parameters_only, unflatten
from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.data.federated import FederatedData
from fedmd.seeding import generator
from fedmd.training.evaluate import accuracy
from fedmd.training.local import floating, train_client
from fedmd.types import ImageSet, Phase, StreamBatch


def members_of(config: RunConfig, attack: Attack) -> tuple[int, ...]:
    """The malicious clients of a run, by id; none where the attack never acts."""
    return malicious_clients(config.federation.clients, config.attack.fraction, config.seed) if attack.phases else ()


def coalition_of(data: FederatedData, folder: Path) -> "Coalition":
    """The coalition of a run, sharing `folder`."""
    attack = attack_of(data.config)
    own_data = data.images.take(data.split.attacker)
    members = members_of(data.config, attack)
    return Coalition(attack, Team(data.config, data.streams, data.local, own_data, SharedCache(folder), members))


def success_test(config: RunConfig, test: ImageSet) -> ImageSet | None:
    """`Attack.success_test` of a run; None where nobody attacks, or where it would be empty."""
    attack = attack_of(config)
    changed = attack.success_test(test) if members_of(config, attack) else None
    return changed if changed is not None and len(changed) else None


class Coalition:
    """The malicious clients of one run, in either mode. Raises nothing of its own; kernels validate their arguments."""

    def __init__(self, attack: Attack, team: Team) -> None:
        self.members = team.members
        self.cache = team.cache
        self._attack = attack
        self._team = team
        self._config = team.config

    def phase(self, round: int) -> Phase:
        """The phase of `round` as far as the members have decided it."""
        triggered_at = self.cache.announced("trigger_round")
        return phase_of(self._config.stream, round, None if triggered_at is None else int(triggered_at))

    def is_active(self, round: int) -> bool:
        """Whether members attack in `round`."""
        return bool(self.members) and self.phase(round) in self._attack.phases

    def includes(self, client: int) -> bool:
        """Whether `client` is a member."""
        return self._team.includes(client)

    @property
    def needs_model(self) -> bool:
        """Whether members must be sent the server's model: for their batches, or to see when to stop accumulating."""
        return self._attack.needs_model or self._config.attack.stop_error_rise is not None

    @property
    def watches(self) -> bool:
        """Whether members look at the server's model in honest rounds, too."""
        return bool(self.members) and self._attack.watches

    @property
    def poisoned_samples(self) -> int | None:
        """How many samples of a member's batch are poisoned in an active round; they come first.

        None in mode=update: an update is poisoned as a whole.
        """
        if self._config.mode == "update":
            return None
        return self._attack.poisoned_samples(self._config.stream.batch_size)

    def poison(self, batch: StreamBatch, model: nn.Module) -> StreamBatch:
        """What a member sends instead of its honest `batch`, knowing the server's current `model`."""
        phase = self._decide_phase(batch.round, model)
        if phase in self._attack.phases:
            return self._attack.poison(self._team, batch, phase, model)
        if self.watches:
            self._attack.watch(self._team, batch.round, model)
        return batch

    def update(self, client: int, situation: Situation) -> dict[str, Tensor]:
        """The floating-point tensors of the model that member `client` sends.

        Buffers are as training left them, unless the attack has others.
        """
        sampled = sample_clients(self._config, situation.round)
        colluders = self._team.asked(situation.round)
        if self._attack.sees == "self":
            trained = self._train(client, situation)
            honest = _vector(trained, situation)[None]
        else:
            known = self._honest(sampled if self._attack.sees == "all" else colluders, situation)
            trained = known[client]
            updates = {each: _vector(state, situation) for each, state in known.items()}
            honest = visible(updates, sampled if self._attack.sees == "all" else colluders)
        knowledge = Knowledge(
            own=_vector(trained, situation),
            honest=honest,
            clients=len(sampled),
            colluders=len(colluders),
            generator=generator(self._config.seed, "update attack", client, situation.round),
            phase=self.phase(situation.round),
            situation=situation,
        )
        malicious = unflatten(
            self._attack.update(self._team, knowledge), parameters_only(situation.model, situation.start)
        )
        buffers = self._attack.buffers(self._team, knowledge) or {}
        return {
            name: situation.start[name] + malicious[name] if name in malicious else buffers.get(name, tensor)
            for name, tensor in trained.items()
        }

    def _decide_phase(self, round: int, model: nn.Module) -> Phase:
        """Members stop accumulating once their own estimate of the error has risen enough."""
        phase = self.phase(round)
        rise = self._config.attack.stop_error_rise
        if phase != "accumulative" or rise is None:
            return phase
        error = 1 - accuracy(model, *self._team.own_data.tensors(next(model.parameters()).device))
        self.cache.announce("error_at_start", error)
        at_start = self.cache.announced("error_at_start")
        if at_start is not None and error - at_start >= rise:
            self.cache.announce("trigger_round", round)
        return self.phase(round)

    def _honest(self, clients: Sequence[int], situation: Situation) -> dict[int, dict[str, Tensor]]:
        """What `clients` honestly learn in this round, by client; trained by whichever colluder asks first."""

        def train() -> dict[str, Tensor]:
            return {
                f"{client}/{name}": tensor
                for client in clients
                for name, tensor in self._train(client, situation).items()
            }

        states: dict[int, dict[str, Tensor]] = {client: {} for client in clients}
        for key, tensor in self.cache.once("honest", situation.round, train).items():
            client, name = key.split("/", 1)
            states[int(client)][name] = tensor
        return states

    def _train(self, client: int, situation: Situation) -> dict[str, Tensor]:
        """What `client` learns from its data, which some attacks poison first; on the CPU, detached from the model."""
        model = situation.model
        train_client(
            model,
            situation.start,
            self._attack.poison_data(self._team.local.of(client)),
            self._config,
            client=client,
            round=situation.round,
            proximal_mu=situation.proximal_mu,
        )
        return {name: tensor.detach().cpu().clone() for name, tensor in floating(model.state_dict()).items()}


def visible(updates: Mapping[int, Tensor], seen: Collection[int]) -> Tensor:
    """Knowledge's ``honest`` [n, d]: out of what each client would honestly send, the ``seen``, in the order of ids.

    Raises:
        ValueError: that is nobody's.
    """
    rows = [updates[client] for client in sorted(updates) if client in seen]
    if not rows:
        raise ValueError("none of the updates is visible to the colluders")
    return torch.stack(rows)


def _vector(trained: State, situation: Situation) -> Tensor:
    """Δ [d] of the parameters."""
    model, start = situation.model, situation.start
    return flatten(parameters_only(model, trained)) - flatten(parameters_only(model, start))
