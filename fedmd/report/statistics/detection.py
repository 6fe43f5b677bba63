"""How well a score tells poisoned from clean. Pure functions; higher scores mean more suspicious."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmd.types import Action, Json

MAX_FPR = 0.05


@dataclass(frozen=True)
class Alarms:
    """True and false alarms [K] of "score >= t" for every t in the scores, from the highest to the lowest.

    scikit-learn has such counts, too; it takes a run a second to import.
    """

    true: NDArray[np.int64]
    false: NDArray[np.int64]

    @classmethod
    def of(cls, scores: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> "Alarms":
        """Of `scores` [N], none of them NaN; equal ones are above a threshold together.

        Those are equal that agree in single precision: what is finer is rounding. (An update that is alone in its round
        always has the same score, up to the last digit.)
        """
        with np.errstate(over="ignore"):
            levels, level = np.unique(scores.astype(np.float32), return_inverse=True)
        true, everything = (np.bincount(level[some], minlength=len(levels)) for some in (poisoned, slice(None)))
        return cls(np.cumsum(true[::-1]), np.cumsum((everything - true)[::-1]))

    @property
    def rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The ROC curve: false and true positive rates [K + 1], from (0, 0) to (1, 1)."""
        fpr, tpr = (np.append(0, counts) / counts[-1] for counts in (self.false, self.true))
        return fpr, tpr

    @property
    def corners(self) -> "Alarms":
        """Without the thresholds in the middle of a straight piece of the ROC curve."""
        bends = np.r_[True, (np.diff(self.false, 2) != 0) | (np.diff(self.true, 2) != 0), True]
        return self if len(self.true) < 3 else Alarms(self.true[bends], self.false[bends])

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share [K] of the alarms that are true."""
        share: NDArray[np.float64] = self.true / (self.true + self.false)
        return share


def sample_detection(scores: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> Json:
    """Area under the ROC curve, average precision, and the largest TPR among thresholds with FPR <= 0.05.

    Args:
        scores: [N], NaN where unmeasured; those samples are left out of everything, the counts included.
        poisoned: bool [N].

    Returns:
        {auroc, average_precision, tpr_at_fpr_05, n_poisoned, n_clean}; the first three in [0, 1], or None
        when one of the two classes is missing. Ties count half in auroc and fall on one side together in
        the other two.
    """
    measured = ~np.isnan(scores)
    truth = poisoned[measured]
    n_poisoned = int(truth.sum())
    counts = {"n_poisoned": n_poisoned, "n_clean": len(truth) - n_poisoned}
    if not all(counts.values()):
        return {"auroc": None, "average_precision": None, "tpr_at_fpr_05": None, **counts}
    alarms = Alarms.of(scores[measured], truth)
    fpr, tpr = alarms.rates
    x, y = alarms.corners.rates
    return {
        "auroc": float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)),
        "average_precision": float(np.sum((np.diff(tpr) * alarms.precision)[::-1])),
        "tpr_at_fpr_05": float(tpr[fpr <= MAX_FPR].max()),
        **counts,
    }


def client_detection(scores: NDArray[np.float64], clients: NDArray[np.int64], malicious: tuple[int, ...]) -> Json:
    """{auroc} of finding the malicious clients by a client's mean score; None when a class is missing.

    `scores` [N] (NaN left out) and the `clients` [N] they came from; a client without a score is left out.
    """
    measured = ~np.isnan(scores)
    ids, owner = np.unique(clients[measured], return_inverse=True)
    means = np.bincount(owner, weights=scores[measured], minlength=len(ids)) / np.bincount(owner)
    return {"auroc": sample_detection(means, np.isin(ids, malicious))["auroc"]}


def flagged_rates(actions: NDArray[np.int64], scores: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> Json:
    """{tpr, fpr}: shares of the poisoned and of the clean whose action [N] is not ACCEPTED.

    None without any of that kind, and both None where no score [N] was measured: that defence does not judge.
    """
    judged = not np.isnan(scores).all() if len(scores) else False
    flagged = actions != Action.ACCEPTED
    return {
        name: float(flagged[kind].mean()) if judged and kind.any() else None
        for name, kind in (("tpr", poisoned), ("fpr", ~poisoned))
    }
