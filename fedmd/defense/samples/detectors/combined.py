"""Several detectors as one, by what their scores mean rather than what they are measured in."""

from typing import cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fedmd.config import Section
from fedmd.defense.samples.comparison import as_scores
from fedmd.defense.samples.detectors.base import Detector
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.registry import DETECTORS, register_detector


@register_detector("combined")
class Combined(Detector):
    """Conformal p-values of several detectors, joined by Fisher's sum (extension); the discrepancy and a rival.

    Each detector's score becomes the share of trusted samples that look at least as strange (Vovk et al., Algorithmic
    Learning in a Random World, 2005; the trusted ones leave themselves out), and the logarithms are added (Fisher,
    Statistical Methods for Research Workers, 1932). The detectors are not independent, so the sum has not Fisher's
    distribution; a quantile over the trusted set needs none.
    """

    label = "Combined p-values"
    unit = "nats"
    needs_features = True
    is_baseline = False

    class Params(Section):
        """Which detectors, with the settings that they have by default."""

        parts: tuple[str, ...] = Field(("discrepancy", "mahalanobis"), min_length=1)

        @model_validator(mode="after")
        def _known(self) -> "Combined.Params":
            allowed = [each.name for each in DETECTORS.own() if each is not Combined]
            for part in self.parts:
                if part not in allowed:
                    raise ValueError(f"parts must be among {', '.join(allowed)}, not {part}")
            return self

    params: Params

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        parts = (cast(type[Detector], DETECTORS.resolve(name)) for name in params.parts)
        self._parts = [part(part.Params()) for part in parts]

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """-Σ_k log p_k [N], p_k of the k-th detector, between 0 and Σ_k log(m + 1) for m trusted samples."""
        if outputs.trusted is None or (scores_of := outputs.trusted().scores) is None:
            raise ValueError("trusted must be given to a detector that compares with the trusted set")
        total = torch.zeros(len(outputs.labels), dtype=torch.float64)
        for part in self._parts:
            trusted = scores_of(part)
            scores = trusted if outputs.are_trusted else part(outputs)
            total -= p_values(scores.cpu(), trusted.cpu(), are_trusted=outputs.are_trusted).log()
        return as_scores(outputs, total)


def p_values(scores: Tensor, trusted: Tensor, *, are_trusted: bool = False) -> Tensor:
    """(1 + #{trusted >= score}) / (m + 1) [N], for `scores` [N] and those of m `trusted` samples; float64.

    `are_trusted`: the scores are the trusted ones, in their order; each is then left out of its own comparison, which
    has m - 1 others. NaN where a score is, or any trusted one.
    """
    ordered = trusted.double().sort().values
    below = torch.searchsorted(ordered, scores.double())  # how many are smaller
    others = len(trusted) - 1 if are_trusted else len(trusted)
    at_least = len(trusted) - below - (1 if are_trusted else 0)
    p = (1 + at_least).double() / (others + 1)
    unknown = scores.isnan() | trusted.isnan().any()
    return p.masked_fill(unknown, torch.nan)
