"""`fedmd calibrate`: a clean run on the operator's own data, in this process, and the thresholds that come of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fedmd.config import ConfigError, RunConfig, Section, ThresholdConfig
from fedmd.data.clients import sample_clients
from fedmd.defense.calibration import Limit, Scores, limits
from fedmd.defense.calibration_file import calibration_text, share_above
from fedmd.defense.samples.pooling import pooled
from fedmd.rounds.stream import JudgedSamples, StreamServer
from fedmd.runs.federation import versions
from fedmd.storage import write_json
from fedmd.training.setup import set_up


def calibrate(
    config: RunConfig,
    file: Path,
    *,
    confidence: float,
    window: int | None,
    on_round: Callable[[int, int], None] = lambda round, rounds: None,
) -> list[Limit]:
    """Learn from every batch of the clients' honest streams, undefended, and write the limits of their scores.

    Each score is what the defence would have held against its threshold (its sample's own, or its message's mean).

    Raises ConfigError for data that cannot be had, and for too few rounds.
    """
    setup = set_up(config)
    data = setup.data
    server = StreamServer(replace(setup, data=replace(data, config=_undefended(config))))
    scores: list[Scores] = []
    for round in range(config.stream.rounds):
        batches = [data.streams.batch(client, round) for client in sample_clients(config, round)]
        judged = server.judge(batches)
        server.learn(judged)
        scores.append(_held_against_threshold(judged, config))
        on_round(round, config.stream.rounds)
    try:
        found = limits(scores, fpr=share_above(config), confidence=confidence, window=window)
    except ValueError as error:
        raise ConfigError(f"{error}; raise stream.clean_rounds, threshold.fpr or --window.") from error
    write_json(file, calibration_text(config, setup.trained, found, confidence=confidence, versions=versions()))
    return found


def _held_against_threshold(judged: JudgedSamples, config: RunConfig) -> Scores:
    """One score for each thing that is judged: a sample, a client's message, or the round."""
    before, clients = torch.from_numpy(judged.verdicts.before), torch.from_numpy(judged.clients)
    scores = pooled(before, config.defense.stopping, clients).numpy()
    if config.defense.stopping == "per_sample":
        return scores
    first = [0] if config.defense.stopping == "batch_mean" else np.unique(judged.clients, return_index=True)[1]
    return scores[first]


def _undefended(config: RunConfig) -> RunConfig:
    """The same run, learning from everything: any threshold will do, as nothing is done about it."""
    return config.model_copy(
        update={
            "defense": config.defense.model_copy(
                update={"name": "none", "factory": None, "params": Section(), "baselines": False}
            ),
            "threshold": ThresholdConfig.model_validate({"name": "fixed"}),
        }
    )
