"""`fedmd status`: a run in one look, while it goes on or afterwards, from its folder alone."""

import fcntl
import json
from pathlib import Path

from fedmd.audit.trail import FOLDER
from fedmd.report.files import METRICS, read_summary
from fedmd.rounds.checkpoint import noted_config
from fedmd.types import Json


def status(run: Path) -> int:
    """0 where the run is over or its server is alive, 1 where it was killed. Raises ConfigError for no run's folder."""
    from fedmd.cli.quarantine import inmates

    config = noted_config(run)
    summary, metrics = read_summary(run), _rounds(run)
    alive = _is_served(run)
    state = "finished" if summary else "running" if alive else "stopped; go on with fedmd run resume=" + str(run)
    print(f"state       {state}")
    print(f"rounds      {len(metrics)} of {config.stream.rounds}" + (f", {metrics[-1]['phase']}" if metrics else ""))
    known = [row for row in metrics if row["accuracy"] is not None]
    if known:
        print(f"accuracy    {100 * known[-1]['accuracy']:.1f} % after round {known[-1]['round']}")
    flagged = [sum(row[f"{what}_share"] or 0 for row in metrics) for what in ("corrected", "rejected")]
    if metrics:
        corrected, rejected = (100 * share / len(metrics) for share in flagged)
        print(f"flagged     {corrected:.1f} % of the samples corrected, {rejected:.1f} % rejected")
        refused = sum(len(row["rejections"]) for row in metrics)
        print(f"refused     {refused} messages" + (f", the latest: {_latest(metrics)}" if refused else ""))
    if (run / FOLDER).exists():
        inside = [f"client {client} since round {since}" for client, since in inmates(run).items()]
        print(f"quarantine  {', '.join(inside) or 'nobody'}")
    print(f"defence     {config.defense.name}, attack {config.attack.name}, mode {config.mode}, seed {config.seed}")
    for warning in (summary or {}).get("warnings", ()):
        print(f"mind        {warning}")
    return 0 if summary or alive else 1


def _rounds(run: Path) -> list[Json]:
    """The rounds that are on disk; the line that is being written is not yet."""
    try:
        lines = (run / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _latest(metrics: list[Json]) -> str:
    rejections = [each for row in metrics for each in row["rejections"]]
    return f"client {rejections[-1]['client']}, {rejections[-1]['reason']}"


def _is_served(run: Path) -> bool:
    """Whether a server works in the folder: it holds the lock that `sole_server` takes."""
    try:
        with (run / ".lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
