"""The figure and the rows by round of `fedmd compare experiment=two_phase`.

python -m simulations.two_phase comparisons/two_phase --out simulations/results/two_phase

`rounds.csv`: accuracy, S, D (mean over the round's updates), the canary and its alarm, of the arms that differ.
`two_phase.png`: accuracy and S, a line a seed. `canary.json`: in which round the alarm came, and whether it did in the
same rounds without an attack.
"""

import csv
import json

from fedmd.report.figures.steering import steering_figure
from simulations.study_arguments import study_and_folder

ROWS = ("no_attack", "none", "screening", "screening_no_attack")
DRAWN = ("none", "screening")


def main() -> None:
    """Read a study, write three files."""
    study, out = study_and_folder(__doc__)
    with (out / "rounds.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", "seed", "round", "phase", "accuracy", "similarity", "discrepancy", "canary", "alarm"])
        for arm in ROWS:
            for seed, run in sorted(study.arms.get(arm, {}).items()):
                for row in run.metrics:
                    canary = row.get("canary", {})
                    numbers = (
                        row["accuracy"],
                        row.get("attack", {}).get("similarity"),
                        row["discrepancy"]["mean"],
                        canary.get("value"),
                    )
                    short = ["" if number is None else f"{number:.4g}" for number in numbers]
                    writer.writerow([arm, seed, row["round"], row["phase"], *short, canary.get("alarm", "")])
    drawn = {
        study.label(arm): [run.metrics for _, run in sorted(study.arms[arm].items())]
        for arm in DRAWN
        if arm in study.arms
    }
    steering_figure(drawn).savefig(out / "two_phase.png")
    alarms = {
        arm: {
            seed: next((row["round"] for row in run.metrics if row.get("canary", {}).get("alarm")), None)
            for seed, run in sorted(study.arms[arm].items())
        }
        for arm in ("screening", "screening_no_attack")
        if arm in study.arms
    }
    (out / "canary.json").write_text(json.dumps({"first_alarm": alarms}, indent=1) + "\n")


if __name__ == "__main__":
    main()
