"""Five clients in this process, in either mode and without Flower: what the tests of the round loop run."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmd.attacks.coalition import coalition_of
from fedmd.audit.entries import Entry
from fedmd.audit.reader import read_live
from fedmd.config import RunConfig
from fedmd.defense.base import defense_of
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.rounds.gate import Gate, open_gate
from fedmd.rounds.loop import run_rounds
from fedmd.rounds.model import ServerModel
from fedmd.rounds.records import Collected, RoundResult
from fedmd.rounds.stream import StreamServer
from fedmd.rounds.update import Contribution, UpdateServer
from fedmd.storage import Saved
from fedmd.training.local import floating
from fedmd.training.setup import Setup, set_up
from fedmd.types import Phase, RefusedNode, Rejection, StreamBatch

Weights = dict[str, Tensor]
BAD = 2  # the client that misbehaves, where one does
MODES: dict[str, dict[str, Any]] = {
    "stream": {
        "data.splits": {"burn_in": 200, "trusted": 100, "attacker": 20, "test": 30},
        "stream.batch_size": 8,
        "quarantine": {"name": "evidence", "shift": 0.2, "false_alarms": 6.7379},
    },
    "update": {
        "mode": "update",
        "local": {"epochs": 1, "batch_size": 8, "lr": 0.1, "samples": 24},
        "defense": {"name": "md_screen"},
        "history": {"name": "lag_and_start", "lag": 1},
        "screening": {"threshold": "fixed", "upper": 5.0, "loss": "ignored"},
        "quarantine": {
            "name": "evidence",
            "shift": 0.5,
            "false_alarms": 606.5,
        },  # one round outside the limits is enough
    },
}


@dataclass(frozen=True)
class Sent:
    """A client's update."""

    client: int
    state: Weights
    content: str | None = None
    examples: int = 10

    def tensors(self) -> Weights:
        """The trained model."""
        return self.state


class MomentumMean:
    """An aggregator of a few lines: the weighted mean, with a heavy ball."""

    def __init__(self, state: Weights) -> None:
        self.state = {name: tensor.clone() for name, tensor in state.items()}
        self.velocity = {name: torch.zeros_like(tensor) for name, tensor in state.items()}

    def undo(self) -> None:
        """Both, as they were."""
        self.state, self.velocity = self.before

    def aggregate(self, contributions: Sequence[Contribution]) -> bool:
        """Whether anybody contributed."""
        self.before = dict(self.state), dict(self.velocity)
        total = sum(each.examples for each in contributions)
        for name, tensor in self.state.items() if contributions else ():
            sent = [each.corrected or each.update.tensors() for each in contributions]
            mean = sum(each.examples / total * state[name] for each, state in zip(contributions, sent, strict=True))
            self.velocity[name] = 0.5 * self.velocity[name] + (mean - tensor)
            self.state[name] = tensor + self.velocity[name]
        return bool(contributions)

    def memory(self) -> Saved:
        """The model and its velocity."""
        return {"state": self.state, "velocity": self.velocity}

    def restore(self, saved: Saved) -> None:
        """Put both back."""
        self.state, self.velocity = dict(saved["state"]), dict(saved["velocity"])


def brightness(outputs: ModelOutputs) -> Tensor:
    """A detector whose scores are known in advance: no net has to learn anything for these tests."""
    assert outputs.x is not None
    return outputs.x.flatten(1).mean(dim=1)


def server_of(setup: Setup) -> StreamServer | UpdateServer:
    """The mode's server; in mode=update with an aggregator of the tests' own."""
    config = setup.data.config
    if config.mode == "stream":
        return StreamServer(setup)
    model = ServerModel(setup)
    screen = defense_of(config).build_screen(config, model.net, model.trusted, setup.trained.snapshots)
    return UpdateServer(model, MomentumMean(floating(model.net.state_dict())), screen)


@dataclass
class Federation:
    """A server and its clients; calling it collects a round.

    Clients `without` send nothing and nobody notices; `lost[round]` are refused; in the rounds `bad_in` client BAD
    sends nothing but white images, or sends weights `factor` times too large.
    """

    config: RunConfig
    folder: Path
    without: Collection[int] = ()
    lost: Mapping[int, Collection[int]] = field(default_factory=dict)
    bad_in: Collection[int] = ()
    factor: float = 1000.0
    refused: Sequence[Rejection] = ()
    refused_nodes: Mapping[int, tuple[RefusedNode, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        setup = set_up(self.config)
        self.data = setup.data
        self.server: Any = server_of(setup)
        self.coalition = coalition_of(setup.data, self.folder / "shared")
        self.asked: list[tuple[int, ...]] = []
        self.sent: list[Any] = []

    def __call__(self, round: int, clients: Sequence[int], net: nn.Module) -> Collected[Any]:
        """What `run_rounds` collects."""
        self.asked.append(tuple(clients))
        lost = self.lost.get(round, ())
        sending = [client for client in clients if client not in {*self.without, *lost}]
        messages = [self.message(client, round, net) for client in sending]
        self.sent += messages
        refused = (*(Rejection(client, "lost") for client in clients if client in lost), *self.refused)
        nodes = {BAD: f"key-{BAD}"}
        return Collected(tuple(messages), refused, 10 * len(messages), nodes, self.refused_nodes.get(round, ()))

    def message(self, client: int, round: int, net: nn.Module) -> Any:
        """What `client` sends."""
        is_bad, content = client == BAD and round in self.bad_in, f"hash-{client}-{round}"
        if self.config.mode == "stream":
            batch = self.data.streams.batch(client, round)
            if self.coalition.is_active(round) and client in self.coalition.members:
                batch = self.coalition.poison(batch, net)
            white = np.full_like(batch.images, 255)
            return StreamBatch(client, round, white if is_bad else batch.images, batch.labels, content)
        generator = torch.Generator().manual_seed(100 * round + client)
        state = {
            name: (self.factor if is_bad else 1) * (tensor + 0.02 * torch.randn(tensor.shape, generator=generator))
            for name, tensor in floating(net.state_dict()).items()
        }
        return Sent(client, state, content)

    def rounds(
        self,
        *,
        saved: Saved | None = None,
        first: int = 0,
        phase_of: Callable[[int], Phase] | None = None,
        on_gate: Callable[[Gate[Any]], None] = lambda gate: None,
    ) -> Iterator[RoundResult[Any]]:
        """The rounds from `first` on, behind the gate of `folder`, or of the run there whose gate was `saved`."""
        with open_gate(self.config, self.folder, self.server, saved, first) as gate:
            on_gate(gate)
            phase_of = phase_of or self.coalition.phase
            yield from run_rounds(self.config, self.server, self, gate, phase_of, first=first)

    def unrecorded(self) -> Iterator[RoundResult[Any]]:
        """All rounds, with quarantine as configured and nothing on disk."""
        gate = Gate(self.config.quarantine, self.server)
        return run_rounds(self.config, self.server, self, gate, self.coalition.phase)

    def weights(self) -> Weights:
        """The model as it is now."""
        return {name: tensor.clone() for name, tensor in self.server.model.net.state_dict().items()}

    def entries(self) -> list[Entry]:
        """The audit trail's records in force."""
        return [record.entry for record in read_live(self.folder / "audit")]


def with_brightness_detector(federation: Federation) -> Federation:
    """`federation`, where samples are judged by how bright they are."""
    if isinstance(federation.server, StreamServer):
        federation.server.pipeline.detector = brightness
    return federation


def same(first: Weights, second: Weights) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
