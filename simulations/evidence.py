"""Who would be accused at which stated rate: the rows of `fedmd compare experiment=evidence`.

python -m simulations.evidence comparisons/evidence --out simulations/results/evidence

The audit trail has the evidence (9) against every client after each of its messages, and nobody was put in quarantine.
At any limit h the CUSUM that begins anew after an alarm follows from it: while the recorded one is above 0 its change
is the round's log-likelihood ratio, and where it is 0 the one that began anew, which is never higher, is 0, too.

`results.csv`, a row an arm and seed: `rounds` of honest clients; for each stated rate X (false alarms in 1,000 rounds)
`alarms.X` and `per_1000.X` of honest clients, `caught.X`, the share of the malicious, and `delay.X`, the mean number of
the attack's rounds until they are, the first being 1; `auroc`: of a client's largest evidence in the attack's rounds.
`roc.png`: the ROC over clients, all seeds together.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedmd.audit.reader import read_live
from fedmd.audit.trail import FOLDER
from fedmd.report.figures.style import legend_text, styles_of
from fedmd.report.results import Run, Study
from fedmd.report.statistics.detection import Alarms, sample_detection
from simulations.study_arguments import study_and_folder

STATED = (100.0, 10.0, 1.0, 0.05)


def evidence_of(run: Run) -> dict[int, list[tuple[int, float]]]:
    """(round, nats) after each message of each client."""
    found: dict[int, list[tuple[int, float]]] = {}
    for record in read_live(run.folder / FOLDER):
        entry = record.entry
        if entry.kind == "message" and entry.client is not None and entry.round is not None:
            found.setdefault(entry.client, []).append((entry.round, entry.evidence or 0.0))
    return found


def alarms(nats: Sequence[float], limit: float) -> list[int]:
    """The places in which a CUSUM, recorded as `nats`, passes `limit` where it begins anew after each alarm."""
    places, anew, before = [], 0.0, 0.0
    for place, now in enumerate(nats):
        anew = max(0.0, anew + now - before) if now > 0 else 0.0
        before = now
        if anew > limit:
            places.append(place)
            anew = 0.0
    return places


def row_of(run: Run) -> dict[str, float | int | None]:
    """What is to be said of one run."""
    found, malicious = evidence_of(run), set(run.truth.malicious_clients)
    began = min(run.truth.poisoned_rounds, default=None)
    honest = [[nats for _, nats in line] for client, line in found.items() if client not in malicious]
    rounds = sum(map(len, honest))
    row: dict[str, float | int | None] = {"rounds": rounds}
    for stated in STATED:
        limit, key = math.log(1000 / stated), f"{stated:g}".replace(".", "_")
        false = sum(len(alarms(nats, limit)) for nats in honest)
        row |= {f"alarms.{key}": false, f"per_1000.{key}": 1000 * false / rounds}
        if began is not None:
            delays = [_delay(found[client], limit, began) for client in malicious]
            caught = [delay for delay in delays if delay is not None]
            row[f"caught.{key}"] = len(caught) / len(delays)
            row[f"delay.{key}"] = float(np.mean(caught)) if caught else None
    if began is not None:
        row["auroc"] = sample_detection(*_largest(run))["auroc"]
    return row


def _delay(line: Sequence[tuple[int, float]], limit: float, began: int) -> int | None:
    rounds = [line[place][0] for place in alarms([nats for _, nats in line], limit)]
    return next((round - began + 1 for round in rounds if round >= began), None)


def _largest(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Every client's largest evidence in the attack's rounds, and whether it is malicious."""
    found, began = evidence_of(run), min(run.truth.poisoned_rounds)
    largest = [max(nats for round, nats in line if round >= began) for line in found.values()]
    return np.array(largest), np.isin([*found], run.truth.malicious_clients)


def main() -> None:
    """Read a study, write two files."""
    study, out = study_and_folder(__doc__)
    rows = [
        {"arm": arm, "seed": seed, **row_of(run)}
        for arm, runs in study.arms.items()
        for seed, run in sorted(runs.items())
    ]
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )
    draw(study, out / "roc.png")


def draw(study: Study, path: Path) -> None:
    """The ROC curve of each attacked arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.6), dpi=160, layout="constrained")
    axis = figure.subplots()
    attacked = {
        arm: runs for arm, runs in study.arms.items() if any(run.truth.poisoned_rounds for run in runs.values())
    }
    styles = styles_of(attacked)
    for arm, runs in attacked.items():
        pairs = [_largest(run) for run in runs.values()]
        scores, malicious = (np.concatenate(part) for part in zip(*pairs, strict=True))
        fpr, tpr = Alarms.of(scores, malicious).rates
        color, _, line = styles[arm]
        axis.step(100 * fpr, 100 * tpr, where="post", color=color, linestyle=line, label=legend_text(study.label(arm)))
    axis.set_xlabel("Honest clients accused (%)")
    axis.set_ylabel("Malicious clients accused (%)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
