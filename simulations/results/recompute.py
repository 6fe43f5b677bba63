"""Recompute the numbers of README and docs from the rows beside this file: python simulations/results/recompute.py

`claims.txt` has, page by page, pieces of their text with an expression in the place of every number:

    # docs/results.md
    | attacked, undefended | {demo; undefended @before_attack} | {demo; undefended} |
    DSC ends {demo; dsc; undefended =pm} points above it

An expression names a folder of rows, an arm (as in the column `arm` of results.csv), and where two arms differ, seed by
seed, a second one; `@key` another column than accuracy.final (`accuracy.` may be left out), `=format` how it is shown:

    level      87.3 ± 1.2           (mean and half width of the 95 % t-interval; what it is unless told, for one arm;
               98.8 [95.3, 100.0]    where that interval crosses the end of a scale, its ends)
    difference 8.1 [5.2, 11.0]      (mean and ends of the interval; unless told, for two)
    pm         8.1 ± 2.9
    mean       87.3
    values     86.1, 87.2, 88.6     (seed by seed)
    recovered  94.1 ± 15.0          (of three arms: in %, what the first has back of what the second lost to the third)

Where an interval is wider than the scale, the seeds' values stand in its place. A star in an arm's name means the mean
over all arms that match, the second arm's star being the first's.

With --fill the numbers of the pages are made those of the rows. Without, the exit code is 1 where a number differs, a
piece is not on its page, or a page has an interval that no piece accounts for.
"""

import csv
import fnmatch
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from fedmd.report.statistics.intervals import Values, kept_gain, mean_interval, paired_intervals, subtract
from fedmd.report.table import Estimate, cell_text, number, percent, plain, points, rate, share

ROWS = Path(__file__).parent
ROOT = ROWS.parents[1]
CLAIMS = ROWS / "claims.txt"
SHARES = re.compile(r"^(accuracy|attack_success)\.|^(accumulation_loss|trigger_drop)$|_share$")
BOUNDED = re.compile(r"^(accuracy|attack_success)\.|_share$|\.(auroc|tpr|fpr|average_precision)$")
INTERVAL = re.compile(r"\d ± \d|\d \[-?\d")
NUMBER = r"-?\d+(?:\.\d+)?"
SHOWN = rf"(?:{NUMBER}(?:, {NUMBER})+|{NUMBER} ± {NUMBER}|{NUMBER} \[[^\]]*\]|{NUMBER} \([^)]*\)|{NUMBER}|–)"


@dataclass(frozen=True)
class Expression:
    """What stands between braces."""

    study: str
    arms: tuple[str, ...]
    key: str = "accuracy.final"
    form: str = ""

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """`study; arm[; arm] [@key] [=format]`. Raises ValueError."""
        found = re.fullmatch(r"([^;]+);(.+?)(?: @([\w.]+))?(?: =(\w+))?", text.strip())
        if found is None:
            raise ValueError(f"{{{text}}} is no expression")
        study, arms, key, form = found.groups()
        key = key or "final"
        known = key if "." in key or SHARES.search(key) else f"accuracy.{key}"
        return cls(study.strip(), tuple(arm.strip() for arm in arms.split(";")), known, form or "")

    def text(self) -> str:
        """The number as the page is to have it."""
        first = self._of(self.arms[0])
        if len(self.arms) == 1:
            return self._shown(mean_over(list(first.values())), paired=False)
        if self.form == "recovered":
            return cell_text(percent(kept_gain(*(mean_over(list(self._of(arm).values())) for arm in self.arms))))
        second = self._of(self.arms[1])
        if list(first) != list(second):
            raise ValueError(f"{self.arms[0]} and {self.arms[1]} of {self.study} do not match the same")
        pairs = zip(first.values(), second.values(), strict=True)
        return self._shown(mean_over([subtract(*pair) for pair in pairs]), paired=True)

    def _of(self, arm: str) -> dict[tuple[str, ...], Values]:
        return columns(self.study, arm, self.key)

    def _shown(self, values: Values, *, paired: bool) -> str:
        form = self.form or ("difference" if paired else "level")
        in_percent = SHARES.search(self.key) is not None
        level = percent(mean_interval(values)) if in_percent else plain(mean_interval(values))
        if form == "difference":
            cell = points(paired_intervals([values], limit=1.0)[0])
            return cell_text(cell if in_percent else replace(cell, scale=level.scale, digits=level.digits))
        if form == "values":
            return ", ".join(number(value * level.scale, level.digits) for value in level.values)
        if form == "mean":
            return cell_text(Estimate(level.mean, None, level.scale, level.digits))
        if form not in ("level", "pm"):
            raise ValueError(f"{form} is no format")
        if form == "level" and BOUNDED.search(self.key):
            return cell_text(share(mean_interval(values)) if in_percent else rate(mean_interval(values)))
        return cell_text(level)


@cache
def rows(study: str) -> tuple[dict[str, str], ...]:
    """The lines of a study's results.csv."""
    with (ROWS / study / "results.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def columns(study: str, pattern: str, key: str) -> dict[tuple[str, ...], Values]:
    """By what the stars stand for: the values of `key`, seed by seed, of the arms that match."""
    seeds = sorted({int(row["seed"]) for row in rows(study)})
    wild = re.compile(fnmatch.translate(pattern).replace(".*", "(.*)"))
    found: dict[tuple[str, ...], Values] = {}
    for row in rows(study):
        if match := wild.fullmatch(row["arm"]):
            value = row[key]  # KeyError: no such column
            line = found.setdefault(match.groups(), [None] * len(seeds))
            line[seeds.index(int(row["seed"]))] = float(value) if value else None
    if not found:
        raise ValueError(f"{study} has no arm {pattern!r}")
    return dict(sorted(found.items()))


def mean_over(lines: Sequence[Values]) -> Values:
    """The mean of several arms at each seed; None where one has no value."""
    return [None if None in seed else sum(seed) / len(seed) for seed in zip(*lines, strict=True)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Claim:
    """A piece of a page's text, with expressions."""

    page: str
    template: str

    @property
    def parts(self) -> list[str]:
        """Text, expression, text, expression, ..., text."""
        return re.split(r"\{([^}]*)\}", self.template)

    def pattern(self) -> re.Pattern[str]:
        """What finds the piece whatever its numbers are, and however its lines are broken."""
        parts = [
            re.sub(r"(?:\\\s|\s)+", r"\\s+", re.escape(part)) if i % 2 == 0 else f"({SHOWN})"
            for i, part in enumerate(self.parts)
        ]
        return re.compile("".join(parts))

    def numbers(self) -> list[str]:
        """What the rows say."""
        return [Expression.parse(part).text() for part in self.parts[1::2]]


def claims() -> Iterator[Claim]:
    """Of all pages."""
    page = ""
    for line in CLAIMS.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            page = line.removeprefix("# ").strip()
        elif line.strip():
            yield Claim(page, line.strip())


def corrected(text: str, page_claims: Sequence[Claim]) -> tuple[str, list[str]]:
    """The text with the rows' numbers, and what was wrong with it."""
    wrong, spans = [], []
    for claim in page_claims:
        found = claim.pattern().search(text)
        if found is None:
            wrong.append(f"not there: {claim.template}")
            continue
        for i, right in reversed(list(enumerate(claim.numbers(), start=1))):
            if found[i] != right:
                wrong.append(f"{found[i]} should be {right}: {claim.template}")
                text = text[: found.start(i)] + right + text[found.end(i) :]
    for claim in page_claims:
        if found := claim.pattern().search(text):
            spans.append(found.span())
    wrong += [
        f"nobody's: {text[max(0, interval.start() - 40) : interval.end() + 10]!r}"
        for interval in INTERVAL.finditer(text)
        if not any(start <= interval.start() < end for start, end in spans)
    ]
    return text, wrong


def main(arguments: Sequence[str]) -> int:
    """0 where all numbers are right, or have been made so."""
    by_page: dict[str, list[Claim]] = {}
    for claim in claims():
        by_page.setdefault(claim.page, []).append(claim)
    everything = []
    for page, page_claims in by_page.items():
        path = ROOT / page
        text, wrong = corrected(path.read_text(encoding="utf-8"), page_claims)
        if "--fill" in arguments:
            path.write_text(text, encoding="utf-8")
            text, wrong = corrected(text, page_claims)
        everything += [f"{page}: {line}" for line in wrong]
    print("\n".join(everything) or f"{len(by_page)} pages agree with the rows")
    return 1 if everything else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
