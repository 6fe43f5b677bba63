"""`fedmd audit`: look into a run's trail, export it, check that nobody touched it."""

from collections.abc import Sequence
from pathlib import Path

from fedmd.audit.reader import Broken, Intact, read_live, trail_files, verify
from fedmd.audit.tables import by_client, in_words, matching, of_client, write_csv
from fedmd.audit.trail import FOLDER
from fedmd.cli.arguments import Arguments
from fedmd.config import ConfigError
from fedmd.report.files import METRICS, read_summary
from fedmd.report.table import terminal

USAGE = "RUN_DIR [--client ID] [--export csv] [--verify]"


def audit(arguments: Sequence[str]) -> int:
    """Exit code 1 when --verify finds the trail broken. Raises ConfigError for everything else that is wrong."""
    parser = Arguments("fedmd audit", USAGE)
    parser.add_argument("run", type=Path)
    parser.add_argument("--client", type=int)
    parser.add_argument("--export", choices=["csv"])
    parser.add_argument("--verify", action="store_true")
    options = parser.parse_args(arguments)
    if options.verify:
        return _verify(options.run)
    folder = trail_of(options.run)
    records = matching(read_live(folder), options.client)
    if options.export:
        path = options.run / ("audit.csv" if options.client is None else f"audit-client-{options.client}.csv")
        print(f"{write_csv(records, path)} records: {path}")
        return 0
    rows = by_client(records) if options.client is None else of_client(records, options.client)
    if not rows:
        print("the trail has no messages" if options.client is None else f"no messages of client {options.client}")
        return 0
    print(terminal(rows), end="")
    return 0


def _verify(run: Path) -> int:
    """Say whether the trail of `run` is intact; a run that has begun has one, with records."""
    begun = read_summary(run) is not None or ((run / METRICS).exists() and (run / METRICS).stat().st_size > 0)
    if begun and not trail_files(run / FOLDER):
        print(f"BROKEN: the run has begun, but its trail is missing in {run / FOLDER}")
        return 1
    found = verify(trail_of(run))
    if begun and isinstance(found, Intact) and found.head.seq == 0:
        print("BROKEN: the run has begun, but its trail has no records")
        return 1
    print(in_words(found))
    return 1 if isinstance(found, Broken) else 0


def trail_of(run: Path) -> Path:
    """The folder of the trail of `run`. Raises ConfigError where there is none."""
    folder = run / FOLDER
    if not trail_files(folder):
        raise ConfigError(f"{run}: this is no run folder with an audit trail.")
    return folder
