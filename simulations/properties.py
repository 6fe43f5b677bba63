"""The discrepancy's AUROC by round, of `fedmd compare experiment=properties`.

python -m simulations.properties comparisons/properties --out simulations/results/properties

`rounds.csv`, a row a setting, history, seed and round: `auroc` of D, poisoned samples against clean ones, below 0.5
where poisons have the smaller discrepancy; `either_tail`: of |log D - median log D over the round|, which is what a
detector sees that does not know the tail. `properties.png`: the first, in the mean over seeds.
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.report.figures.style import legend_text, styles_of
from fedmd.report.results import Run
from fedmd.report.statistics.detection import sample_detection
from fedmd.storage import read_json
from simulations.study_arguments import study_and_folder

Curve = dict[int, list[float]]  # a round's AUROC, seed by seed
_LEAST = 1e-12  # nats: below, D is rounding


def by_round(run: Run) -> list[tuple[int, float, float]]:
    """(round, AUROC, AUROC of either tail) of the rounds in which somebody poisoned."""
    verdicts = run.verdicts
    poisoned = run.truth.of(verdicts)
    scores, rounds = verdicts["discrepancy"].to_numpy(np.float64), verdicts["round"].to_numpy(np.int64)
    lines = []
    for round in run.truth.poisoned_rounds:
        here = rounds == round
        d, truth = scores[here], poisoned[here]
        lines.append((round, _auroc(d, truth), _auroc(outlying(d), truth)))
    return lines


def outlying(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """|log D - median log D| [n]."""
    logs = np.log(np.maximum(d, _LEAST))
    return np.abs(logs - np.median(logs))


def _auroc(scores: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> float:
    return float(sample_detection(scores, poisoned)["auroc"])


def main() -> None:
    """Read a study, write two files."""
    study, out = study_and_folder(__doc__)
    table = read_json(study.folder / "comparison.json")["table"]
    curves: dict[str, dict[str, Curve]] = {}
    with (out / "rounds.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["setting", "history", "seed", "round", "auroc", "either_tail"])
        for setting, cells in table["cells"].items():
            for history, arm in cells.items():
                curve: Curve = defaultdict(list)
                for seed, run in sorted(study.arms[arm].items()):
                    for round, upper, either in by_round(run):
                        writer.writerow([setting, history, seed, round, f"{upper:.4f}", f"{either:.4f}"])
                        curve[round].append(upper)
                curves.setdefault(table["rows"][setting], {})[table["columns"][history]] = curve
    draw(curves, out / "properties.png")


def draw(curves: dict[str, dict[str, Curve]], path: Path) -> None:
    """A panel a setting, a line a history: mean AUROC by round, seeds as dots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * len(curves), 3.0), dpi=160, layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    styles = styles_of(next(iter(curves.values())))
    for axis, (setting, lines) in zip(axes, curves.items(), strict=True):
        for history, curve in lines.items():
            color, _, line = styles[history]
            label = legend_text(history) if axis is axes[0] else None
            axis.plot(
                [*curve], [np.mean(values) for values in curve.values()], color=color, linestyle=line, label=label
            )
            for round, values in curve.items():
                axis.plot([round] * len(values), values, ".", color=color, markersize=2.5, alpha=0.6)
        axis.axhline(0.5, color="#999999", linewidth=0.6)
        axis.set_title(setting, fontsize="small")
        axis.set_xlabel("Round")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("AUROC of the discrepancy")
    axes[0].set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=len(styles), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
