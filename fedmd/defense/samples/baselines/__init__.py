"""Data-level detectors of the literature, beside which the discrepancy stands in every report.

Each is a pure function of `Answers` like any other detector, fitted on the server's trusted set under today's model,
in float64 on the CPU (so that bf16 changes the features only). Whatever their papers do with the *predicted* class is
done here with the *claimed* label, because a server judges a labelled sample. A class with no trusted sample (or, for
a trusted sample, no other one) is judged by the whole set. All scores are >= 0, and NaN where features are missing.
"""

from fedmd.defense.samples.baselines.kernel_density import kernel_density
from fedmd.defense.samples.baselines.lid import lid
from fedmd.defense.samples.baselines.mahalanobis import mahalanobis
from fedmd.defense.samples.baselines.pixel_distance import pixel_distance

__all__ = ["kernel_density", "lid", "mahalanobis", "pixel_distance"]
