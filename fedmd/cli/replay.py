"""Judge a quarantined client's kept batches again, by the last models of the run; and learn from them, if told to."""

import json
from pathlib import Path

from fedmd.audit import quarantine_store, trail
from fedmd.audit.entries import Entry, JudgedMessage
from fedmd.config import ConfigError, RunConfig
from fedmd.report.files import read_summary
from fedmd.report.table import Row
from fedmd.rounds.stream import StreamServer
from fedmd.storage import CheckpointError
from fedmd.training.setup import set_up
from fedmd.types import Action, StreamBatch, Verdicts


def replay(run: Path, client: int, *, learn: bool) -> list[Row]:
    """One row a stored batch; the verdicts are added to the trail. With `learn` the run's saved model moves on.

    Raises ConfigError when the run is not finished or one of mode=update, stores nothing of `client`, or was changed.
    """
    config = _config(run)
    stored = [batch for batch in quarantine_store.contents(run / quarantine_store.FOLDER) if batch.client == client]
    if not stored:
        raise ConfigError(f"{run}: nothing is kept of client {client}.")
    server = _server(run, config)
    rows: list[Row] = []
    with trail.open_trail(run, config.audit) as recorded:
        for batch in stored:
            try:
                tensors = batch.load()
            except CheckpointError as error:
                raise ConfigError(str(error)) from error
            sent = StreamBatch(client, batch.round, tensors["images"].numpy(), tensors["labels"].numpy())
            judged, version = server.judge([sent]), server.version
            recorded.append(_entries(judged.for_audit[0], batch.round, version))
            if learn:
                recorded.append([Entry("replay", "learned", batch.round, client, model_version=version)])
                server.learn(judged)
            rows.append(_row(batch.round, judged.verdicts))
    if learn:
        server.save_models(run)
    return rows


def _entries(message: JudgedMessage, round: int, version: int) -> list[Entry]:
    return [
        Entry(
            "replay",
            action.name.lower(),
            round=round,
            client=message.client,
            index=index,
            discrepancy=score.discrepancy,
            score=score.score,
            threshold=score.threshold,
            model_version=version,
        )
        for index, (action, score) in enumerate(zip(message.actions, message.scores, strict=True))
    ]


def _row(round: int, verdicts: Verdicts) -> Row:
    return {
        "round": str(round),
        "samples": str(len(verdicts.actions)),
        **{action.name.lower(): str(int((verdicts.actions == action).sum())) for action in Action},
        "score": f"{verdicts.before.mean():.3f}",
        "threshold": "–" if verdicts.threshold is None else f"{verdicts.threshold:.3f}",
    }


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


def _server(run: Path, config: RunConfig) -> StreamServer:
    """The run's server as the run left it; momentum begins anew."""
    server = StreamServer(set_up(config))
    try:
        server.load_models(run)
    except (FileNotFoundError, CheckpointError) as error:
        raise ConfigError(f"{run}: its last models cannot be read ({error}).") from error
    return server
