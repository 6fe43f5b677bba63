"""The colluders of mode=update: what each member sends instead of what it honestly learned.

Everything here is a function of the run's configuration, the data and the models the server published; what is
expensive is computed once and shared through the blackboard: the first member to need the round's honest updates
trains them all, and nobody waits for a message from anybody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from fedmd.attacks.accumulative_update import accumulative_push, trigger_push
from fedmd.attacks.backdoor import plant_in
from fedmd.attacks.label_flip import flip_labels
from fedmd.attacks.schedule import malicious_clients, phase_of
from fedmd.attacks.shared_cache import Blackboard
from fedmd.attacks.update_attacks import UPDATE_ATTACKS, Knowledge, visible
from fedmd.attacks.vectors import flatten, parameters_only, unflatten
from fedmd.config import AttackConfig, RunConfig
from fedmd.data.clients import LocalData, sample_clients
from fedmd.seeding import generator
from fedmd.training.local import floating, train_client
from fedmd.types import ImageSet, Phase

State = Mapping[str, Tensor]
_ALONE = ("sign_flip", "label_flip", "replacement")  # attacks that look at the member's own update only


@dataclass(frozen=True)
class Situation:
    """The round a member is in: `model` to work with (any weights), and the server's state `start`."""

    round: int
    model: nn.Module
    start: State
    proximal_mu: float = 0.0


class UpdateCoalition:
    """The malicious clients of one run."""

    def __init__(self, config: RunConfig, data: LocalData, own_data: ImageSet, blackboard: Blackboard) -> None:
        self._config = config
        self._data = data
        self._own_data = own_data  # the attackers' validation data: no other part of the run sees it
        self.blackboard = blackboard
        fraction = config.attack.fraction if config.attack.name != "none" else 0.0
        self.members = malicious_clients(config.federation.clients, fraction, config.seed)

    @property
    def poisoned_samples(self) -> None:
        """An update is poisoned as a whole."""
        return None

    def phase(self, round: int) -> Phase:
        """The phase of `round`."""
        return phase_of(self._config.stream, round)

    def is_active(self, round: int) -> bool:
        """Whether members attack in `round`."""
        return bool(self.members) and self.phase(round) in ("accumulative", "trigger")

    def update(self, client: int, situation: Situation) -> dict[str, Tensor]:
        """The floating-point tensors of the model that member `client` sends. Buffers are as training left them."""
        attack = self._config.attack
        sampled = sample_clients(self._config, situation.round)
        colluders = [member for member in self.members if member in sampled]
        if attack.name in _ALONE:
            trained = self._train(client, situation)
            honest = self._flat(trained, situation)[None]
        else:
            known = self._honest(sampled if attack.knowledge == "all" else colluders, situation)
            trained = known[client]
            updates = {each: self._flat(state, situation) for each, state in known.items()}
            honest = visible(updates, colluders, attack.knowledge)
        knowledge = Knowledge(
            own=self._flat(trained, situation),
            honest=honest,
            clients=len(sampled),
            colluders=len(colluders),
            generator=generator(self._config.seed, "update attack", client, situation.round),
            scale=attack.scale,
            perturbation=attack.perturbation,
            push=self._push(situation) if attack.name == "accumulative" else None,
            norm_bound=attack.norm_bound,
        )
        parameters = parameters_only(situation.model, situation.start)
        malicious = unflatten(UPDATE_ATTACKS[attack.name](knowledge), parameters)
        return {
            name: tensor if name not in malicious else situation.start[name] + malicious[name]
            for name, tensor in trained.items()
        }

    def _flat(self, trained: State, situation: Situation) -> Tensor:
        """Δ [d] of the parameters."""
        model, start = situation.model, situation.start
        return flatten(parameters_only(model, trained)) - flatten(parameters_only(model, start))

    def _honest(self, clients: Sequence[int], situation: Situation) -> dict[int, dict[str, Tensor]]:
        """What `clients` honestly learn in this round, by client; trained by whichever colluder asks first."""

        def train() -> dict[str, Tensor]:
            return {
                f"{client}/{name}": tensor
                for client in clients
                for name, tensor in self._train(client, situation).items()
            }

        states: dict[int, dict[str, Tensor]] = {client: {} for client in clients}
        for key, tensor in self.blackboard.once("honest", situation.round, train).items():
            client, name = key.split("/", 1)
            states[int(client)][name] = tensor
        return states

    def _train(self, client: int, situation: Situation) -> dict[str, Tensor]:
        """What `client` learns from its data, which some attacks poison first; on the CPU, detached from the model."""
        model = situation.model
        own = self._local_data(client)
        train_client(
            model,
            situation.start,
            own,
            self._config,
            client=client,
            round=situation.round,
            proximal_mu=situation.proximal_mu,
        )
        return {name: tensor.detach().cpu().clone() for name, tensor in floating(model.state_dict()).items()}

    def _local_data(self, client: int) -> ImageSet:
        own, poison = self._data.of(client), POISONS.get(self._config.attack.name)
        return own if poison is None else poison(own, self._config.attack)

    def _push(self, situation: Situation) -> Tensor:
        """What the accumulative attack adds in this round, the same for all colluders."""

        def push() -> dict[str, Tensor]:
            model = situation.model
            model.load_state_dict(situation.start)
            device = next(model.parameters()).device
            x_tri, y_tri = self._trigger().tensors(device)
            if self.phase(situation.round) == "trigger":
                return {"push": trigger_push(model, x_tri, y_tri)}
            return {"push": accumulative_push(model, x_tri, y_tri, *self._own_data.tensors(device))}

        return self.blackboard.once("push", situation.round, push)["push"].cpu()

    def _trigger(self) -> ImageSet:
        """The trigger batch: the first batch of every member's local data, clean."""
        size = self._config.local.batch_size
        own = [self._data.of(member) for member in self.members]
        return ImageSet(
            np.concatenate([part.images[:size] for part in own]),
            np.concatenate([part.labels[:size] for part in own]),
            self._own_data.classes,
        )


def _flipped(own: ImageSet, attack: AttackConfig) -> ImageSet:
    return ImageSet(own.images, flip_labels(own.labels, own.classes), own.classes)


# attack.name -> what members do to their own data before they train on it
POISONS: dict[str, Callable[[ImageSet, AttackConfig], ImageSet]] = {"label_flip": _flipped, "replacement": plant_in}
