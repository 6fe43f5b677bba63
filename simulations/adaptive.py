"""The rows and the figure of `fedmd compare experiment=adaptive`: what accuracy a nat of discrepancy buys.

python -m simulations.adaptive comparisons/adaptive --out simulations/results/adaptive

`spent.csv`, a row a run: the largest discrepancy of honest rounds, of pushes and of triggers (nats, to the model of
three rounds ago, on the server's trusted images; rejected ones included), what the attack's phases cost in points, and
how many updates were rejected. `spent.png`: points lost against the largest discrepancy of an attacker's update,
where the server accepts all; the line is the least that n points cost where answers are certain, n / 100 · log 2.
"""

import csv
import math

from matplotlib.figure import Figure

from simulations.study_arguments import study_and_folder

PHASES = ("clean", "accumulative", "trigger")
ACCEPTS_ALL = "measured_"


def main() -> None:
    """Read a study, write two files."""
    study, out = study_and_folder(__doc__)
    rows = []
    for arm, runs in study.arms.items():
        for seed, run in sorted(runs.items()):
            largest = {phase: 0.0 for phase in PHASES}
            for row in run.metrics:
                if row["phase"] in largest and row["discrepancy"]["mean"] is not None:
                    largest[row["phase"]] = max(largest[row["phase"]], row["discrepancy"]["mean"])
            accuracy = run.summary["accuracy"]
            before, then, final = (accuracy[key] for key in ("before_attack", "before_trigger", "final"))
            rejected = sum(row["rejected_share"] > 0 for row in run.metrics)
            short = [f"{largest[phase]:.4g}" for phase in PHASES]
            lost = [f"{100 * (a - b):.1f}" for a, b in ((before, then), (then, final))]
            rows.append([arm, seed, *short, *lost, rejected])
    with (out / "spent.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        phases = [f"{phase}_discrepancy" for phase in PHASES]
        writer.writerow(["arm", "seed", *phases, "accumulation_points", "trigger_points", "rejected_updates"])
        writer.writerows(rows)
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    attacked = [row for row in rows if row[0].startswith(ACCEPTS_ALL) and not row[0].endswith("no_attack")]
    axes.scatter([max(float(row[3]), float(row[4])) for row in attacked], [_points(row) for row in attacked], s=18)
    least = [points for points in range(1, 91)]
    axes.plot([points / 100 * math.log(2) for points in least], least, color="#888888", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("Largest discrepancy of an attacker's update (nats)")
    axes.set_ylabel("Accuracy lost (points)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "spent.png", dpi=150)


def _points(row: list[object]) -> float:
    return float(str(row[5])) + float(str(row[6]))


if __name__ == "__main__":
    main()
