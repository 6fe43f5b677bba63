"""A finished run, and a study of several, as Python objects; the HTML page shows these, too. See `loading`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from fedmd.report.files import (
    METRICS,
    SUMMARY,
    Truth,
    read_example_images,
    read_metrics,
    read_summary,
)
from fedmd.report.scores import Score, held_score, scores_of
from fedmd.report.statistics.comparison import NOT_MEASURED, arm_label, column
from fedmd.report.statistics.intervals import Values, paired_intervals, subtract
from fedmd.report.verdicts import ACTIONS, SCHEMA, read_verdicts
from fedmd.storage import replacing
from fedmd.types import PHASES, ExampleImages, Json, Rejection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["sweep", "comparison"]
Plot = Literal["accuracy", "scores", "clients"]


class ReportError(ValueError):
    """There is nothing to report on; the message is one sentence, fit to be shown as it is."""


@dataclass(frozen=True)
class Run:
    """A finished run. What its folder no longer holds is empty: no rounds, no verdicts, nobody malicious.

    `summary` is summary.json: accuracies and shares in [0, 1], times in seconds.
    """

    folder: Path
    summary: Json = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The run whose summary.json lies in `folder`. Raises ReportError where there is none."""
        summary = read_summary(folder)
        if summary is None:
            raise ReportError(f"{folder}: the run there is not finished, {SUMMARY} is missing.")
        return cls(folder, summary)

    @property
    def config(self) -> Json:
        """The settings of the run, as a tree."""
        config: Json = self.summary["config"]
        return config

    @cached_property
    def metrics(self) -> list[Json]:
        """The lines of metrics.jsonl, one a round."""
        return read_metrics(self.folder) if (self.folder / METRICS).exists() else []

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """One row a round: phase, accuracy, loss, threshold, discrepancy.mean, corrected_share, wall_s.total, ..."""
        return pd.DataFrame([flat(row) for row in self.metrics])

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """One row a sample: round, phase, client, index, label, its scores, the threshold, the action.

        `before` and `after` are the detector's scores of the sample as it arrived and as it was learned from.
        """
        try:
            return read_verdicts(self.folder)
        except FileNotFoundError:
            empty = pd.DataFrame({name: pd.Series(dtype="float64") for name in SCHEMA.names})
            return empty.assign(phase=pd.Categorical([], PHASES), action=pd.Categorical([], ACTIONS))

    @cached_property
    def truth(self) -> Truth:
        """Who was malicious, and when."""
        return Truth.read(self.folder)

    @cached_property
    def example_images(self) -> ExampleImages | None:
        """A malicious client's images: clean, as sent, as learned from."""
        return read_example_images(self.folder)

    @property
    def clients(self) -> pd.DataFrame:
        """One row a client, by its id: malicious, samples, mean score, shares corrected and rejected, refusals."""
        verdicts = self.verdicts
        table = verdicts.assign(
            corrected=verdicts["action"] == "corrected", rejected=verdicts["action"] == "rejected"
        ).groupby("client")
        refused = pd.Series([entry["client"] for row in self.metrics for entry in row["rejections"]], dtype="int64")
        clients = pd.DataFrame(
            {
                "samples": table.size(),
                "mean_score": table["before"].mean(),
                "corrected_share": table["corrected"].mean(),
                "rejected_share": table["rejected"].mean(),
            }
        )
        clients = clients.reindex(sorted({*clients.index, *refused}))
        clients.insert(0, "malicious", np.isin(clients.index, self.truth.malicious_clients))
        clients["samples"] = clients["samples"].fillna(0).astype(int)
        return clients.assign(refused=refused.value_counts().reindex(clients.index, fill_value=0)).rename_axis("client")

    @property
    def quarantined(self) -> dict[int, int]:
        """The clients whose latest message was kept aside in quarantine, and since which round they are there."""
        latest = self.verdicts.groupby("client")["round"].max()
        since: dict[int, int] = {}
        for row in self.metrics:
            for entry in row["rejections"]:
                began = Rejection(entry["client"], entry["reason"]).quarantined_since
                if began is not None and latest.get(entry["client"], -1) <= row["round"]:
                    since[entry["client"]] = began
        return since

    @property
    def detector(self) -> str:
        """The label of `score`."""
        return self.score.label

    @property
    def score(self) -> Score:
        """The score in the column `before`."""
        return held_score(scores_of(self.summary))

    @property
    def stopping(self) -> str:
        """Over what the score is averaged before it is held against the threshold."""
        return str(self.config.get("defense", {}).get("stopping", "per_sample"))

    def plot(self, what: Plot = "accuracy") -> Figure:
        """Accuracy by round, the detector's `scores` of clean and poisoned samples, or the `clients`' mean scores."""
        from fedmd.report.figures.heatmap import heat_map_figure
        from fedmd.report.figures.run import accuracy_figure, score_figure

        if what == "accuracy":
            return accuracy_figure(self.metrics)
        draw = {"scores": score_figure, "clients": heat_map_figure}[what]
        return draw(self.verdicts, self.truth, self.score)

    def _repr_html_(self) -> str:
        """For notebooks: the headline numbers and the accuracy."""
        from fedmd.report.html.write import run_html

        return run_html(self)


Arms = Mapping[str, Mapping[int, Run]]


@dataclass(frozen=True)
class Study:
    """Several runs: `arms[id][seed]`. In a sweep an arm is what differs only in the seed.

    `comparison` is comparison.json, None for a sweep: means over seeds with 95 % t-intervals.
    """

    folder: Path
    kind: Kind
    arms: Arms = field(repr=False)
    comparison: Json | None = field(default=None, repr=False)

    def label(self, arm: str) -> str:
        """What people call the arm."""
        return arm_label(self.comparison, arm) if self.comparison else arm

    @property
    def by_label(self) -> Arms:
        """`arms` by their labels."""
        return {self.label(arm): by_seed for arm, by_seed in self.arms.items()}

    @property
    def results(self) -> pd.DataFrame:
        """One row a finished run: arm, label, seed, and every number of its summary (accuracy.final, ...)."""
        return pd.DataFrame(
            [
                result_row(arm, self.label(arm), seed, run.summary)
                for arm, by_seed in self.arms.items()
                for seed, run in by_seed.items()
            ]
        )

    def paired(self, first: str, second: str, key: str = "accuracy.final") -> Json:
        """{mean, ci95, low, high, bootstrap, n, values} of `first` minus `second`, seed by seed, in the column `key`.

        See `fedmd.report.statistics.intervals`. Raises ReportError for an arm that there is not.
        """
        limit = 1.0 if key.startswith("accuracy.") else math.inf
        return paired_intervals([subtract(self._values(first, key), self._values(second, key))], limit)[0]

    def _values(self, arm: str, key: str) -> Values:
        if arm not in self.arms:
            raise ReportError(f"{arm!r} is not an arm of this study; its arms are {', '.join(self.arms)}.")
        summaries = {seed: run.summary for seed, run in self.arms[arm].items()}
        seeds = sorted({seed for by_seed in self.arms.values() for seed in by_seed})
        return column(summaries, seeds, key.split("."))

    def plot(self) -> Figure:
        """Accuracy by round of every arm, mean and 95 % t-interval over seeds."""
        from fedmd.report.figures.arms import arm_accuracy_figure
        from fedmd.report.figures.style import styles_of

        metrics = {label: [run.metrics for run in runs.values()] for label, runs in self.by_label.items()}
        return arm_accuracy_figure(metrics, styles_of(metrics))

    def _repr_html_(self) -> str:
        """For notebooks: the table of arms."""
        from fedmd.report.html.write import study_html

        return study_html(self)


def write_parquet(results: pd.DataFrame, folder: Path) -> None:
    """results.parquet of `Study.results`: the same as results.csv, with types."""
    with replacing(folder / "results.parquet") as temporary:
        results.to_parquet(temporary, index=False)


def result_row(arm: str, label: str, seed: int, summary: Json) -> Json:
    """A line of results.csv: every number of the run's summary."""
    return {
        "arm": arm,
        "label": label,
        "seed": seed,
        **flat({key: value for key, value in summary.items() if key not in NOT_MEASURED}),
    }


def flat(tree: Json, prefix: str = "") -> dict[str, Any]:
    """A tree as {"data.partition.name": "iid", ...}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return result
