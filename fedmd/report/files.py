"""The files of a run's folder: their names, and reading and writing the small ones."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmd.storage import read_json, write_json
from fedmd.types import ExampleImages, Json

METRICS = "metrics.jsonl"  # one line a round
VERDICTS = "verdicts.parquet"  # one row a sample, one row group a round
TRUTH = "truth.json"  # who poisoned and when
SUMMARY = "summary.json"  # written last: a folder that has it holds a finished run
COMPARISON = "comparison.json"  # of a study, whose runs lie where `cell_folder` says
REPORT = "report.html"
ACCURACY_FIGURE, SCORE_FIGURE, EXAMPLES_FIGURE = "accuracy.png", "discrepancy.png", "example_images.png"
EXAMPLES = "example_images.npz"  # uint8 arrays clean, poisoned and corrected, [n, C, H, W] each
DERIVED = (ACCURACY_FIGURE, SCORE_FIGURE, EXAMPLES_FIGURE, EXAMPLES, REPORT)  # drawn from the others

WITHIN_TRANSPORT = "attack"  # of `wall_s`: what simulated attackers craft in is part of the time for their messages


def cell_folder(study: Path, arm: str, seed: int) -> Path:
    """Where the run of the arm with the id `arm` at `seed` lies in a study's folder."""
    return study / "cells" / arm / f"seed-{seed}"


@dataclass(frozen=True)
class Truth:
    """Which samples were poisoned: recomputed from roster and schedule, never sent by a client.

    The ids of the malicious clients that were asked at least once, and the rounds in which they poison what they send:
    what clients that nobody asked would have done, no run can tell. Of a poisoned batch the first `poisoned_samples`
    are poisoned; None means all of them.
    """

    malicious_clients: tuple[int, ...] = ()
    poisoned_rounds: tuple[int, ...] = ()
    poisoned_samples: int | None = None

    @property
    def others(self) -> str:
        """What those are called that are not known to be poisoned: clean only where somebody is known to attack."""
        return "clean" if self.malicious_clients else "samples"

    def mask(
        self, rounds: NDArray[np.int64], clients: NDArray[np.int64], index: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Poisoned [N] of the samples (round, client, index): round and client are listed, `index` is low enough."""
        malicious = np.isin(clients, np.array(self.malicious_clients, np.int64))
        poisoned = malicious & np.isin(rounds, np.array(self.poisoned_rounds, np.int64))
        return poisoned if self.poisoned_samples is None else poisoned & (index < self.poisoned_samples)

    def of(self, verdicts: pd.DataFrame) -> NDArray[np.bool_]:
        """`mask` of the rows of read_verdicts; needs the columns round, client and index."""
        return self.mask(*(verdicts[name].to_numpy(np.int64) for name in ("round", "client", "index")))

    def write(self, folder: Path) -> None:
        """Write truth.json into the run's folder."""
        write_json(folder / TRUTH, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read truth.json from the run's folder; without one nobody is malicious."""
        if not (folder / TRUTH).exists():
            return cls()
        value = read_json(folder / TRUTH)
        return cls(tuple(value["malicious_clients"]), tuple(value["poisoned_rounds"]), value.get("poisoned_samples"))


def read_metrics(folder: Path) -> list[Json]:
    """The lines of metrics.jsonl, one a round; one that is being written is not there yet."""
    with (folder / METRICS).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def round_seconds(row: Json) -> float:
    """What the round of a line of metrics.jsonl took."""
    return float(sum(value for stage, value in row["wall_s"].items() if stage != WITHIN_TRANSPORT))


def write_summary(folder: Path, summary: Json) -> None:
    """Write summary.json atomically. It comes last: it marks the run as finished."""
    write_json(folder / SUMMARY, summary)


def read_summary(folder: Path) -> Json | None:
    """summary.json of a finished run, one of schema 1 as of schema 2; None when the folder holds none."""
    if not (folder / SUMMARY).exists():
        return None
    summary: Json = read_json(folder / SUMMARY)
    for section in (summary.get("detection", {}), summary.get("wall_s", {})):
        if "rivals" in section:  # as schema 1 calls them
            section["baselines"] = section.pop("rivals")
    return summary


def write_example_images(folder: Path, images: ExampleImages) -> None:
    """Save the arrays in the run's folder, compressed, without pickle."""
    np.savez_compressed(folder / EXAMPLES, clean=images.clean, poisoned=images.poisoned, corrected=images.corrected)


def read_example_images(folder: Path) -> ExampleImages | None:
    """The arrays saved in the run's folder; None when there are none."""
    if not (folder / EXAMPLES).exists():
        return None
    with np.load(folder / EXAMPLES, allow_pickle=False) as arrays:
        return ExampleImages(arrays["clean"], arrays["poisoned"], arrays["corrected"])
