"""Whole federations over Flower in this process: nodes, messages, strategies and the round loop, without Ray."""

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from torch import Tensor

from fedmd.attacks.coalition import coalition_of
from fedmd.config import RunConfig
from fedmd.flower.client.app import app
from fedmd.flower.server.collect import AskForSamples, Collector
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.wire.model_exchange import Exchange, InMessage
from fedmd.flower.wire.updates import UPDATE
from fedmd.rounds.gate import open_gate
from fedmd.rounds.loop import run_rounds
from fedmd.runs.federation import SIDES, quiet_flower
from fedmd.storage import Saved
from fedmd.training.setup import Setup, set_up
from fedmd.types import ImageSet, RoundReport, StreamBatch
from tests.inline import FIRST, Inline, Node, simulated_nodes

DIGITS = ImageSet(np.zeros((1, 1, 8, 8), np.uint8), np.zeros(1, np.int64), 10)  # what the expected samples look like
Spoil = Callable[[RecordDict], None]


@dataclass
class Outcome:
    """What a federation told, and what it ended with."""

    reports: list[RoundReport] = field(default_factory=list)
    server: Any = None
    saved: Saved | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The final model."""
        return {name: tensor.clone() for name, tensor in self.server.model.net.state_dict().items()}


def sample_collector(grid: Any, config: RunConfig, exchange: Exchange | None = None) -> Collector[StreamBatch]:
    """What collects samples from the nodes of `grid`, which have said who they are."""
    exchange = exchange or InMessage()
    nodes = Nodes(grid, config, exchange.folder)
    nodes.connect()
    return Collector(config, nodes, exchange, AskForSamples(config, DIGITS), "session")


def federate(
    grid: Any,
    config: RunConfig,
    folder: Path,
    *,
    exchange: Exchange | None = None,
    saved: Saved | None = None,
    watch: Callable[[RoundReport], None] = lambda report: None,
    outcome: Outcome | None = None,
    setup: Setup | None = None,
) -> Outcome:
    """The rounds of `config`, from the state `saved` on; `watch` is told every report when its round ends."""
    setup, outcome = setup or set_up(config), outcome or Outcome()
    exchange, first = exchange or InMessage(), saved["done"] if saved else 0
    with quiet_flower():
        outcome.server, asking = SIDES[config.mode](setup, folder)
        nodes = Nodes(grid, config, exchange.folder)
        nodes.connect()
        coalition = coalition_of(setup.data, Path(exchange.folder or folder))
        if saved:
            outcome.server.restore(saved["server"])
        with open_gate(config, folder, outcome.server, saved and saved["gate"], first) as gate:
            collect = Collector(config, nodes, exchange, asking, "session")
            for result in run_rounds(config, outcome.server, collect, gate, coalition.phase, first=first):
                watch(result.report)
                outcome.reports.append(result.report)
                state = {"server": outcome.server.state(), "gate": gate.state()}
                outcome.saved = copy.deepcopy({"done": result.report.round + 1, **state})
    return outcome


def simulated(count: int, spoil: Mapping[int, Spoil] | None = None, mute: Collection[int] = ()) -> Inline:
    """`count` nodes of the client app; `spoil[client]` may change the update that this client's node sends.

    Of the `mute` nodes no update ever comes.
    """

    def spoilt(place: int, node: Node) -> Node:
        def answer(request: Message) -> list[Any]:
            replies: list[Any] = list(node(request))
            if request.metadata.message_type != UPDATE:
                return replies
            for reply in replies:
                for client in list(reply.content.config_records["fedmd"]["clients"]):
                    (spoil or {}).get(client, lambda content: None)(reply.content)
            return [] if place in mute else replies

        return answer

    return Inline({node: spoilt(node - FIRST, answers) for node, answers in simulated_nodes(app, count).items()})
