"""`fedmd quarantine`: who is in, what is kept of them, let them go, judge what is kept again."""

from pathlib import Path

from fedmd.audit import quarantine_store as shelf
from fedmd.audit import release_requests as requests
from fedmd.audit.reader import read_live
from fedmd.audit.tables import of_client
from fedmd.cli.audit import trail_of
from fedmd.config import ConfigError
from fedmd.report.files import read_summary
from fedmd.report.table import Row, terminal, terminal_columns

ACTIONS = ("list", "show", "release", "replay")


def quarantine(run: Path, action: str, client: int | None, *, learn: bool) -> int:
    """Always 0. Raises ConfigError for whatever is wrong."""
    if action not in ACTIONS:
        raise ConfigError(f"fedmd quarantine: {action!r} is not one of {', '.join(ACTIONS)}.")
    if learn and action != "replay":
        raise ConfigError("--learn: goes with replay.")
    trail_of(run)
    if action == "list":
        _list(run)
        return 0
    if client is None:
        raise ConfigError(f"{action} takes a CLIENT.")
    if action == "show":
        _show(run, client)
    elif action == "release":
        _release(run, client)
    else:
        from fedmd.cli.replay import replay  # torch is slow to import

        print(terminal(replay(run, client, learn=learn), columns=terminal_columns()), end="")
    return 0


def inmates(run: Path) -> dict[int, int]:
    """The clients in quarantine at the end of the trail, and since which round."""
    since: dict[int, int] = {}
    for entry in (record.entry for record in read_live(trail_of(run))):
        if entry.kind == "run":
            since.clear()
        elif entry.kind == "quarantine" and entry.client is not None and entry.round is not None:
            if entry.action == "quarantined":
                since[entry.client] = entry.round
            elif entry.action == "released":
                since.pop(entry.client, None)
    return since


def _list(run: Path) -> None:
    since, kept = inmates(run), shelf.contents(run / shelf.FOLDER)
    asked = {client for client, _ in requests.pending(run / shelf.FOLDER)}
    rows: list[Row] = []
    for client in sorted({*since, *(batch.client for batch in kept)}):
        mine = [batch for batch in kept if batch.client == client]
        rows.append(
            {
                "client": str(client),
                "in quarantine": f"since round {since[client]}" if client in since else "no longer",
                "kept batches": str(len(mine)),
                "bytes": str(sum(batch.bytes for batch in mine)),
                "release": "asked for" if client in asked else "",
            }
        )
    print(terminal(rows, columns=terminal_columns()) if rows else "nobody is in quarantine\n", end="")


def _show(run: Path, client: int) -> None:
    rows = of_client(read_live(trail_of(run)), client)
    if not rows:
        raise ConfigError(f"{run}: the trail does not know client {client}.")
    print(terminal(rows, columns=terminal_columns()))
    for batch in (batch for batch in shelf.contents(run / shelf.FOLDER) if batch.client == client):
        print(f"kept: round {batch.round}, {batch.bytes} bytes, {batch.path}")


def _release(run: Path, client: int) -> None:
    since = inmates(run)
    if client not in since:
        raise ConfigError(f"{run}: client {client} is not in quarantine.")
    if read_summary(run) is not None:
        raise ConfigError(f"{run}: the run is over, so there is no server to take client {client} back.")
    requests.request_release(run / shelf.FOLDER, client, since[client])
    print(f"client {client} is released when the next round begins")
