"""The trail as tables: one row a client, or one row a message of one client; and everything as CSV."""

import csv
import datetime
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fedmd.audit.entries import NAMES
from fedmd.audit.reader import Broken, Intact, Record
from fedmd.storage import replacing

Row = dict[str, str]
MISSING = "–"


@dataclass
class _Client:
    messages: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    discrepancy: float = 0.0
    measured: int = 0
    evidence: float | None = None
    last_reason: str = ""
    in_quarantine: bool = False


def by_client(records: Iterable[Record]) -> list[Row]:
    """What became of each client's messages and samples, clients ascending."""
    clients: dict[int, _Client] = {}
    for entry in (record.entry for record in records):
        if entry.client is None:
            continue
        mine = clients.setdefault(entry.client, _Client())
        if entry.kind == "message":
            mine.messages[entry.action] += 1
            mine.evidence = entry.evidence if entry.evidence is not None else mine.evidence
            mine.last_reason = entry.reason or mine.last_reason
        elif entry.kind == "verdict":
            mine.samples[entry.action] += 1
            if entry.discrepancy is not None:
                mine.discrepancy, mine.measured = mine.discrepancy + entry.discrepancy, mine.measured + 1
        elif entry.kind == "quarantine" and entry.action in ("quarantined", "released"):
            mine.in_quarantine = entry.action == "quarantined"
    return [
        {
            "client": str(client),
            "messages": str(mine.messages.total()),
            "refused": str(mine.messages["rejected"]),
            "kept aside": str(mine.messages["quarantined"]),
            "samples": str(mine.samples.total()),
            "corrected": str(mine.samples["corrected"]),
            "rejected": str(mine.samples["rejected"]),
            "discrepancy": _number(mine.discrepancy / mine.measured if mine.measured else None),
            "evidence": _number(mine.evidence),
            "now": "in quarantine" if mine.in_quarantine else "",
            "last reason": short(mine.last_reason),
        }
        for client, mine in sorted(clients.items())
    ]


def of_client(records: Iterable[Record], client: int) -> list[Row]:
    """The messages of `client` and what happened to it, in the order of time."""
    return [
        {
            "record": str(record.seq),
            "time": _time(record.time),
            "round": MISSING if record.entry.round is None else str(record.entry.round),
            "what": f"{record.entry.kind} {record.entry.action}",
            "discrepancy": _number(record.entry.discrepancy),
            "threshold": _number(record.entry.threshold),
            "evidence": _number(record.entry.evidence),
            "content": (record.entry.content or MISSING)[:12],
            "reason": short(record.entry.reason or ""),
        }
        for record in records
        if record.entry.client == client and record.entry.kind != "verdict"
    ]


def write_csv(records: Iterable[Record], path: Path) -> int:
    """One line a record with every field; returns their number. Floats are written so that they read back equal."""
    count = 0
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, ["seq", "time", *NAMES, "hash"], lineterminator="\n")
        writer.writeheader()
        for count, record in enumerate(records, 1):  # noqa: B007
            line = {"seq": record.seq, "time": _time(record.time), **asdict(record.entry), "hash": record.hash}
            writer.writerow({key: _harmless(value) for key, value in line.items()})
    return count


def matching(records: Iterable[Record], client: int | None) -> Iterator[Record]:
    """The records of `client`; all for None."""
    return (record for record in records if client is None or record.entry.client == client)


def in_words(found: Intact | Broken) -> str:
    """What `verify` found, as `fedmd audit --verify` says it."""
    if isinstance(found, Broken):
        return f"BROKEN at record {found.seq} in {found.file}: {found.reason}"
    earlier = "" if found.first == 1 else f"; the {found.first - 1} before them are in files kept elsewhere"
    count = found.head.seq - found.first + 1
    return f"intact: {count} records in {found.files} files{earlier}\nhead: {found.head.seq}:{found.head.hash}"


def short(text: str, room: int = 60) -> str:
    """`text` fit for a terminal, at most `room` characters of it."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= room else printable[: room - 1] + "…"


def _harmless(value: object) -> object:
    """Text that a client may have had a hand in: printable, and quoted where a spreadsheet takes it for a formula."""
    if not isinstance(value, str):
        return value
    text = short(value, len(value))
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(sep=" ", timespec="milliseconds")
