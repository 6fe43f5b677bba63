"""The rows and the figure of `fedmd compare experiment=adaptive_stream`: what damage a nat of discrepancy buys.

python -m simulations.adaptive_stream comparisons/adaptive_stream --out simulations/results/adaptive_stream

`spent.csv`, a row a run: the mean discrepancy (nats, the server's own measure, as samples arrive) of honest clients'
samples in the attack's rounds, of the accumulative ones, of the trigger, the mean threshold where there is one, the
share of poisoned samples that went in untouched, and the points of final accuracy that the attack costs under the same
defence at the same seed. `spent.png`: these points against the discrepancy of the accumulative samples over that of
the honest ones in the same rounds, in the mean over seeds, seeds as dots; hollow marks: ten steps instead of two.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedmd.report.figures.style import plain_log_ticks, styles_of
from fedmd.report.results import Run
from fedmd.storage import read_json
from simulations.study_arguments import study_and_folder

COLUMNS = ("honest", "accumulative", "trigger", "threshold", "untouched_share", "lost_points")
KINDS = {
    ("knows_nothing", "ten_steps"): "knows nothing",
    ("price",): "knows the model",
    ("limit",): "knows the limit, too",
    ("both_limit",): "keeps both scores below a limit",
}


def spent(run: Run) -> list[float]:
    """Of one attacked run, all of COLUMNS but the last; NaN where there is nothing."""
    verdicts, poisoned = run.verdicts, run.truth.of(run.verdicts)
    phase = verdicts["phase"].astype(str).to_numpy()
    attacked = np.isin(phase, ["accumulative", "trigger"])
    values, thresholds = (verdicts[key].to_numpy(np.float64) for key in ("discrepancy", "threshold"))
    parts = (attacked & ~poisoned, poisoned & (phase == "accumulative"), poisoned & (phase == "trigger"))
    untouched = (verdicts["action"].astype(str) == "accepted").to_numpy()[poisoned]
    return [*(_mean(values[part]) for part in parts), _mean(thresholds[attacked]), _mean(untouched)]


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def main() -> None:
    """Read a study, write two files."""
    study, out = study_and_folder(__doc__)
    table = read_json(study.folder / "comparison.json")["table"]
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with (out / "spent.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["defense", "attacker", "seed", *COLUMNS])
        for row, cells in table["cells"].items():
            for column, arm in cells.items():
                if row == "no_attack":
                    continue
                for seed, run in sorted(study.arms[arm].items()):
                    calm = study.arms[table["cells"]["no_attack"][column]][seed]
                    lost = 100 * (calm.summary["accuracy"]["final"] - run.summary["accuracy"]["final"])
                    numbers = spent(run)
                    writer.writerow([column, row, seed, *(f"{number:.4g}" for number in numbers), f"{lost:.1f}"])
                    ratio = numbers[1] / numbers[0]
                    points.setdefault(column, {}).setdefault(row, []).append((ratio, lost))
    draw({table["columns"][column]: found for column, found in points.items()}, out / "spent.png")


def draw(points: dict[str, dict[str, list[tuple[float, float]]]], path: Path) -> None:
    """A panel a defence; a curve a kind of attacker, in the order of prices and of limits."""
    figure = Figure(figsize=(3.0 * len(points), 3.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(points), sharex=True, sharey=True, squeeze=False)[0]
    styles = styles_of(KINDS.values())
    for axis, (defense, found) in zip(axes, points.items(), strict=True):
        for rows, name in KINDS.items():
            color, marker, line = styles[name]
            curve = []
            for row, pairs in found.items():
                if not row.startswith(rows):
                    continue
                ratios, lost = np.array(pairs).T
                axis.plot(ratios, lost, ".", color=color, markersize=3, alpha=0.5)
                many_steps = row.endswith("ten_steps")
                fill = "none" if many_steps else color
                axis.plot([ratios.mean()], [lost.mean()], marker, color=color, markerfacecolor=fill, markersize=7)
                if not many_steps:
                    curve.append((ratios.mean(), lost.mean()))
            label = name if axis is axes[0] else None
            axis.plot(*np.array(curve).T, linestyle=line, color=color, marker=marker, markersize=7, label=label)
        axis.axhline(0, color="#999999", linewidth=0.6)
        axis.axvline(1, color="#999999", linewidth=0.6)
        axis.set_xscale("log")
        plain_log_ticks(axis.xaxis, 10)
        axis.set_title(defense, fontsize="small")
        axis.set_xlabel("D of poison / D of honest")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Accuracy lost to the attack (points)")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.savefig(path)


if __name__ == "__main__":
    main()
