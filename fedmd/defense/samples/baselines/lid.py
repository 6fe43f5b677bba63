"""Local intrinsic dimensionality (Ma et al., Characterizing Adversarial Subspaces Using LID, ICLR 2018)."""

import math

from torch import Tensor

from fedmd.defense.samples.baselines.reference import features, scores, unmeasured
from fedmd.defense.samples.outputs import Answers

NEIGHBOURS = 20  # the paper's k for batches of 100
SMALLEST = 1e-12  # a distance, and a mean log ratio: neighbours may coincide, or all be equally far


def lid(answers: Answers) -> Tensor:
    """-((1/k) Σ_{i=1..k} log(r_i / r_k))⁻¹ [N], r_i the distance to the i-th nearest trusted sample, of any class.

    The paper's maximum-likelihood estimate in the penultimate features only (it feeds those of all layers to a
    classifier), k = min(20, all there are). Looks at no label.
    """
    compared = features(answers)
    if compared is None:
        return unmeasured(answers)
    k = min(NEIGHBOURS, len(compared.trusted) - compared.own)
    if k < 1:
        return unmeasured(answers)
    distances = compared.distances().masked_fill(~compared.allowed(), math.inf)
    nearest = distances.topk(k, dim=1, largest=False).values.clamp(min=SMALLEST)
    ratios = (nearest / nearest.amax(dim=1, keepdim=True)).log()
    return scores(answers, 1 / (-ratios.mean(dim=1)).clamp(min=SMALLEST))
