"""One golden run on today's code: its overrides in, the run's folder and final model out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fedmd import storage as checkpoint
from fedmd.flower.client.app import app
from fedmd.rounds.checkpoint import CHECKPOINT
from fedmd.runs import federation
from fedmd.runs.compose import compose
from fedmd.runs.federation import serve
from fedmd.runs.inline import server_identity
from tests.inline import Inline, simulated_nodes

Federate = Callable[..., dict[str, Tensor]]


class Stopped(Exception):
    """The server was killed."""


def federate(overrides: list[str], folder: Path, cache: Path, *, stop_after: int | None = None) -> dict[str, Tensor]:
    """The federation of `overrides` in `folder`; killed after `stop_after` rounds and gone on with. The final model."""
    config = compose([*overrides, f"hydra.run.dir={folder}", f"runtime.cache_dir={cache}"]).config
    kept: dict[str, Any] = {}

    def keep(folder: Path) -> None:
        if (folder / CHECKPOINT).exists():
            kept.update(checkpoint.load_tree(folder / CHECKPOINT))
        discard(folder)

    def stop(config: Any, report: Any) -> None:
        if report.round + 1 == stop_after:
            raise Stopped

    discard = federation.discard_checkpoint
    with pytest.MonkeyPatch.context() as patch, server_identity():
        patch.setattr(federation, "discard_checkpoint", keep)
        if stop_after is not None:
            with pytest.raises(Stopped):
                serve(Inline(simulated_nodes(app, config.federation.node_count)), config, folder, stop)
        serve(
            Inline(simulated_nodes(app, config.federation.node_count)),
            config,
            folder,
            lambda config, report: None,
            resume=stop_after is not None,
        )
    server = kept["saved"]["server"]
    model: dict[str, Tensor] = server["aggregator"]["arrays"] if config.mode == "update" else server["model"]
    return model
