"""How big the project is, and how much of it a round takes part in: python simulations/benchmarks/structure.py

Files and lines are counted. The round's path is measured: a small federation is run twice in this process, the second
time with one accumulative round more, and whatever was called more often then belongs to a round. Run it from the root
of a checkout, whose own fedmd and tests are measured.
"""

import argparse
import json
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = Path.cwd()
sys.path[:0] = [str(ROOT)]
LONG = 200  # lines

SETTINGS = [
    "data=digits", "model=cnn", "model.width=4", "data.splits.burn_in=150", "data.splits.trusted=40",
    "data.splits.attacker=40", "data.splits.test=200", "training.burn_in.epochs=1", "training.burn_in.batch_size=25",
    "federation.clients=4", "attack=accumulative", "attack.fraction=0.5", "runtime.device=cpu",
    "runtime.progress=false",
    "stream.clean_rounds=1", "stream.trigger_rounds=1", "stream.recovery_rounds=0",
]  # fmt: skip
MODES = {
    "a streamed sample": ["stream.batch_size=6", "defense=dsc"],
    "a client's update": ["mode=update", "local.samples=30", "defense=md_screen"],
}


class Calls:
    """How often each function of fedmd/ was called, by file, and methods of which of its classes were."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self.chosen: set[str] = set()  # of the types: settings and plug-ins
        self._of_fedmd = str(ROOT / "fedmd")

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """What sys.setprofile calls."""
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(self._of_fedmd):
            self.files[code.co_filename.removeprefix(f"{ROOT}/")] += 1
        if code.co_argcount and code.co_varnames[0] == "self":
            kind = type(frame.f_locals.get("self"))
            if kind.__module__.startswith("fedmd."):
                name = f"{kind.__module__}.{kind.__qualname__}"
                self.types[name] += 1
                if {"BaseModel", "Plugin"} & {base.__name__ for base in kind.__mro__}:
                    self.chosen.add(name)


def calls(overrides: list[str], cache: Path) -> Calls:
    """All calls of one federation."""
    from tests.golden.federate import federate

    counted = Calls()
    with tempfile.TemporaryDirectory() as folder:
        threading.setprofile(counted)
        sys.setprofile(counted)
        try:
            federate([*SETTINGS, *overrides], Path(folder, "run"), cache)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return counted


def path_of(overrides: list[str], cache: Path) -> tuple[set[str], set[str], set[str]]:
    """Files and types that take part in a round, and which types are settings or plug-ins.

    They are called more often where there is an accumulative round more.
    """
    calls([*overrides, "stream.accumulative_rounds=1"], cache)  # fills the caches of data and imports
    fewer = calls([*overrides, "stream.accumulative_rounds=1"], cache)
    more = calls([*overrides, "stream.accumulative_rounds=2"], cache)
    return (
        {name for name, times in more.files.items() if times > fewer.files[name]},
        {name for name, times in more.types.items() if times > fewer.types[name]},
        more.chosen,
    )


def measure() -> tuple[dict[str, int], dict[str, list[str]]]:
    """The numbers by the names that docs/architecture.md gives them, and what is behind the last ones."""
    lines = {path: len(path.read_text().splitlines()) for path in sorted((ROOT / "fedmd").rglob("*.py"))}
    numbers = {
        "Python files in `fedmd/`": len(lines),
        "lines in them": sum(lines.values()),
        f"files over {LONG} lines": sum(count > LONG for count in lines.values()),
    }
    details: dict[str, list[str]] = {}
    types: set[str] = set()
    chosen: set[str] = set()
    with tempfile.TemporaryDirectory() as cache:
        for name, overrides in MODES.items():
            files, of_mode, chosen_there = path_of(overrides, Path(cache))
            numbers[f"files that take part in a round of {name}"] = len(files)
            details[name] = sorted(files)
            types |= of_mode
            chosen |= chosen_there
    numbers["types at work in a round, both modes"] = len(types)
    numbers["the same without settings and plug-ins"] = len(types - chosen)
    details["types"] = sorted(types)
    return numbers, details


def fill(page: Path, numbers: dict[str, int]) -> None:
    """Put the numbers into the last column of the page's table, in the rows that are called after them."""
    rows = []
    for row in page.read_text(encoding="utf-8").splitlines():
        cells = row.split(" | ")
        number = numbers.get(cells[0].removeprefix("| "))
        rows.append(row if number is None else " | ".join([*cells[:-1], f"{number:,} |"]))
    page.write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    """Print the numbers and what is behind them; --fill PAGE writes the numbers into its table."""
    parser = argparse.ArgumentParser(description="Measure the structure of the checkout in the current folder.")
    parser.add_argument("--fill", type=Path, metavar="PAGE")
    options = parser.parse_args()
    numbers, details = measure()
    print(json.dumps({**numbers, **details}, indent=2))
    if options.fill:
        fill(options.fill, numbers)


if __name__ == "__main__":
    main()
