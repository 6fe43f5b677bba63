"""One line a round on the terminal, while the run goes on."""

import numpy as np

from fedmd.types import Action, RoundReport


def round_line(report: RoundReport, rounds: int) -> str:
    """`round  12/24  accumulative  accuracy 91.3 %  discrepancy 0.12 (threshold 0.40)  corrected 12 %`."""
    verdicts = report.verdicts
    parts = [f"round {report.round + 1:>4}/{rounds}", f"{report.phase:<12}"]
    parts.append("accuracy   --  " if report.accuracy is None else f"accuracy {100 * report.accuracy:5.1f} %")
    if report.attack_success is not None:
        parts.append(f"attack success {100 * report.attack_success:5.1f} %")
    if len(verdicts.before) and not np.isnan(verdicts.before).all():
        limit = "none" if verdicts.threshold is None else f"{verdicts.threshold:.3f}"
        name = "discrepancy" if verdicts.discrepancy is None else "score"
        parts.append(f"{name} {np.nanmean(verdicts.before):.3f} (threshold {limit})")
    parts.append(f"corrected {100 * verdicts.share(Action.CORRECTED):3.0f} %")
    parts.append(f"rejected {100 * verdicts.share(Action.REJECTED):3.0f} %")
    if report.rejections:
        parts.append(f"{len(report.rejections)} client(s) refused: {report.rejections[0].reason}")
    return "  ".join(parts)
