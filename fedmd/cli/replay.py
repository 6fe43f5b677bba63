"""Judge a quarantined client's kept batches again, by the last models of the run; and learn from them, if told to."""

import json
from pathlib import Path

from fedmd.audit import quarantine_store as shelf
from fedmd.audit import trail
from fedmd.audit.entry import Entry
from fedmd.config import ConfigError, RunConfig
from fedmd.report.summary import read_summary
from fedmd.report.table import Row
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.services import load_models, save_models
from fedmd.storage import CheckpointError
from fedmd.training.setup import set_up
from fedmd.types import Action, StreamBatch


def replay(run: Path, client: int, *, learn: bool) -> list[Row]:
    """One row a kept batch; the verdicts are added to the trail. With `learn` the run's saved model moves on.

    Raises ConfigError when the run is not finished or one of mode=update, keeps nothing of `client`, or was changed.
    """
    config = _config(run)
    kept = [batch for batch in shelf.contents(run / shelf.FOLDER) if batch.client == client]
    if not kept:
        raise ConfigError(f"{run}: nothing is kept of client {client}.")
    learner = _learner(run, config)
    rows: list[Row] = []
    with trail.AuditTrail(run / trail.FOLDER, rotate_bytes=config.audit.rotate_bytes) as recorded:
        for batch in kept:
            try:
                tensors = batch.load()
            except CheckpointError as error:
                raise ConfigError(str(error)) from error
            sent = StreamBatch(client, batch.round, tensors["images"].numpy(), tensors["labels"].numpy())
            judged, version = learner.judge([sent]), learner.pipeline.steps
            verdicts = judged.screened.verdicts
            counts = {action: int((verdicts.actions == action).sum()) for action in Action}
            recorded.append(
                [
                    Entry(
                        "replay",
                        Action(int(action)).name.lower(),
                        round=batch.round,
                        client=client,
                        index=index,
                        discrepancy=float(score)
                        if verdicts.discrepancy is None
                        else float(verdicts.discrepancy[index]),
                        score=None if verdicts.discrepancy is None else float(score),
                        threshold=verdicts.threshold,
                        model_version=version,
                    )
                    for index, (action, score) in enumerate(zip(verdicts.actions, verdicts.before, strict=True))
                ]
            )
            if learn:
                recorded.append([Entry("replay", "learned", batch.round, client, model_version=version)])
                learner.step(judged)
            rows.append(
                {
                    "round": str(batch.round),
                    "samples": str(len(sent)),
                    **{action.name.lower(): str(count) for action, count in counts.items()},
                    "score": f"{verdicts.before.mean():.3f}",
                    "threshold": "–" if verdicts.threshold is None else f"{verdicts.threshold:.3f}",
                }
            )
    if learn:
        save_models(learner, run)
    return rows


def _config(run: Path) -> RunConfig:
    summary = read_summary(run)
    if summary is None:
        raise ConfigError(f"{run}: the run is not finished; replay needs its last model.")
    config = RunConfig.parse(json.dumps(summary["config"]))
    if config.mode == "update":
        raise ConfigError(
            f"{run}: replay is for mode=stream; an update is judged among those of its round, which is over."
        )
    return config


def _learner(run: Path, config: RunConfig) -> OnlineLearner:
    """The run's learner as the run left it; momentum begins anew."""
    setup = set_up(config)
    learner = OnlineLearner(config, setup.data.images, setup.data.split, setup.trained, setup.placement)
    try:
        load_models(learner, run)
    except (FileNotFoundError, CheckpointError) as error:
        raise ConfigError(f"{run}: its last models cannot be read ({error}).") from error
    return learner
