"""`fedmd status`: a run in one look, while it goes on or afterwards, from its folder alone."""

from pathlib import Path

from fedmd.audit.trail import FOLDER
from fedmd.report.files import METRICS, read_metrics, read_summary
from fedmd.rounds.folder import is_served, noted_config
from fedmd.types import Json


def status(run: Path) -> int:
    """0 where the run is over or its server is alive, 1 where it was killed. Raises ConfigError for no run's folder."""
    from fedmd.cli.quarantine import inmates

    config = noted_config(run, "fedmd status")
    summary = read_summary(run)
    metrics = read_metrics(run) if (run / METRICS).exists() else []
    alive = is_served(run)
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


def _latest(metrics: list[Json]) -> str:
    rejections = [each for row in metrics for each in row["rejections"]]
    return f"client {rejections[-1]['client']}, {rejections[-1]['reason']}"
