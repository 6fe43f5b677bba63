"""How well a score tells poisoned from clean. Pure functions; higher scores mean more suspicious."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fedmd.types import Action, Json

MAX_FPR = 0.05


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
    ranks = rankdata(scores[measured])  # only the order counts, and ranks are finite where scores are not
    fpr, tpr, _ = roc_curve(truth, ranks, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(truth, ranks)),
        "average_precision": float(average_precision_score(truth, ranks)),
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
