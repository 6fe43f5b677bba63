"""What a run says while it goes on: a line a round for people, or JSON, a line an object, for machines."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np

from fedmd.storage import dumps
from fedmd.types import Action, Json, RoundReport

_LOGGERS = ("fedmd", "flwr")


def round_line(report: RoundReport, rounds: int) -> str:
    """`[ 12/24] round  11  accumulative  accuracy 91.3 %  discrepancy 0.12 (threshold 0.40)  corrected 12 %`.

    So many rounds are over; rounds count from 0, as in every file of a run.
    """
    verdicts = report.verdicts
    parts = [f"[{report.round + 1:>3}/{rounds}] round {report.round:>3}", f"{report.phase:<12}"]
    parts.append("accuracy   --  " if report.accuracy is None else f"accuracy {100 * report.accuracy:5.1f} %")
    if report.attack_success is not None:
        parts.append(f"attack success {100 * report.attack_success:5.1f} %")
    if len(verdicts.before) and not np.isnan(verdicts.before).all():
        limit = "none" if verdicts.threshold is None else f"{verdicts.threshold:.3f}"
        name = "discrepancy" if verdicts.discrepancy is None else "score"
        parts.append(f"{name} {np.nanmean(verdicts.before):.3f} (threshold {limit})")
    parts.append(f"corrected {100 * verdicts.share(Action.CORRECTED):3.0f} %")
    parts.append(f"rejected {100 * verdicts.share(Action.REJECTED):3.0f} %")
    if report.undone is not None:
        parts.append(f"model as before: {report.undone}")
    if report.rejections:
        parts.append(f"{len(report.rejections)} client(s) refused: {report.rejections[0].reason}")
    return "  ".join(parts)


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": ..., "logger": ..., "message": ...}`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def json_logs() -> Iterator[None]:
    """Everything fedmd and Flower log goes to standard error as JSON inside the block, and as before after it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("fedmd").setLevel(logging.INFO)  # the trail's head is no warning
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def round_json(metrics: Json) -> str:
    """A round's metrics as such a line."""
    return dumps({"time": datetime.now(UTC).isoformat(), "level": "info", "logger": "fedmd.round", **metrics})
