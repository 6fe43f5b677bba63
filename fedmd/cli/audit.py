"""`fedmd audit`: look into a run's trail, export it, check that nobody touched it."""

import re
from pathlib import Path

from fedmd.audit.chain import Position
from fedmd.audit.reader import Broken, read_live, trail_files, verify, what_is_cut, what_is_unsigned
from fedmd.audit.tables import by_client, in_words, matching, of_client, write_csv
from fedmd.audit.trail import FOLDER
from fedmd.config import ConfigError
from fedmd.report.files import METRICS, read_summary
from fedmd.report.table import terminal, terminal_columns


def audit(
    run: Path, *, client: int | None, export: str | None, verified: bool, head: str | None, public_key: Path | None
) -> int:
    """Exit code 1 when `verified` finds the trail broken. Raises ConfigError for everything else that is wrong."""
    if export not in (None, "csv"):
        raise ConfigError(f"--export: {export!r} is not csv.")
    if verified:
        return _verify(run, None if head is None else _head(head), public_key)
    if head is not None or public_key is not None:
        raise ConfigError("--head and --public-key go with --verify.")
    folder = trail_of(run)
    records = matching(read_live(folder), client)
    if export:
        path = run / ("audit.csv" if client is None else f"audit-client-{client}.csv")
        print(f"{write_csv(records, path)} records: {path}")
        return 0
    rows = by_client(records) if client is None else of_client(records, client)
    if not rows:
        print("the trail has no messages" if client is None else f"no messages of client {client}")
        return 0
    print(terminal(rows, columns=terminal_columns()), end="")
    return 0


def _verify(run: Path, noted: Position | None, public_key: Path | None) -> int:
    """Say whether the trail of `run` is intact, leads through the `noted` head, and is signed, if that is asked.

    A run that has begun has a trail with records, and one that has finished noted its head.
    """
    folder, summary = run / FOLDER, read_summary(run)
    begun = summary is not None or ((run / METRICS).exists() and (run / METRICS).stat().st_size > 0)
    if begun and not trail_files(folder):
        return _broken(f"the run has begun, but its trail is missing in {folder}")
    found = verify(trail_of(run))
    if isinstance(found, Broken):
        print(in_words(found))
        return 1
    if begun and found.head.seq == 0:
        return _broken("the run has begun, but its trail has no records")
    heads = [noted] if noted is not None else []
    if summary is not None and "audit_head" in summary and summary["audit_head"]["seq"] >= found.first - 1:
        heads.append(Position(**summary["audit_head"]))
    for head in heads:
        if problem := what_is_cut(folder, found, head):
            return _broken(problem)
    if public_key is not None:
        from fedmd.audit.signing import Checker  # slow to import

        if problem := what_is_unsigned(folder, found, Checker(public_key)):
            return _broken(problem)
    print(in_words(found))
    return 0


def _broken(problem: str) -> int:
    print(f"BROKEN: {problem}")
    return 1


def _head(text: str) -> Position:
    """The N:HASH that `fedmd audit --verify` and a finished run print."""
    seq, _, digest = text.partition(":")
    if not re.fullmatch(r"[0-9]{1,18}", seq) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigError("--head: takes N:HASH, a record's number and the 64 digits of its hash.")
    return Position(int(seq), digest)


def trail_of(run: Path) -> Path:
    """The folder of the trail of `run`. Raises ConfigError where there is none."""
    folder = run / FOLDER
    if not trail_files(folder):
        raise ConfigError(f"{run}: this is no run folder with an audit trail.")
    return folder
