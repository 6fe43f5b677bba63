"""Means over seeds with Student-t intervals, differences and ratios paired by seed."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from fedmd.types import Json

CONFIDENCE = 0.95

Values = list[float | None]  # one a seed, None where the run is missing or the value undefined


def mean_interval(values: Sequence[float | None]) -> Json:
    """{mean, ci95, n, values}: mean ± ci95 is the two-sided 95 % Student-t interval.

        ci95 = t_{0.975, n-1} · s / √n,   s² = Σ (v - mean)² / (n - 1)

    None and non-finite values are dropped from the statistics, but stay in `values` as None, in place, so
    that they line up with the seeds; `n` counts the others. mean is None for n = 0 and ci95 for n < 2.
    """
    kept = [None if value is None or not math.isfinite(value) else float(value) for value in values]
    numbers = np.array([value for value in kept if value is not None], np.float64)
    n = len(numbers)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * numbers.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return {"mean": float(numbers.mean()) if n else None, "ci95": half, "n": n, "values": kept}


def difference(first: float | None, second: float | None) -> float | None:
    """`first - second`; None when either is."""
    return None if first is None or second is None else first - second


def subtract(first: Values, second: Values) -> Values:
    """`first - second` seed by seed."""
    return [difference(a, b) for a, b in zip(first, second, strict=True)]


def kept_gain(arm: Values, floor: Values, ceiling: Values) -> Json:
    """Share of the gain `ceiling - floor` that `arm` keeps: a ratio of means over the seeds with all three.

        kept = arm - floor,   gain = ceiling - floor,   R = mean(kept) / mean(gain)
        ci95 = ci95(kept - R · gain) / mean(gain)          (to first order)

    `values` are the seeds' own shares. None where the gain is not positive: there is nothing to keep.
    """
    columns = zip(subtract(arm, floor), subtract(ceiling, floor), strict=True)
    pairs = [None if kept is None or gain is None else (kept, gain) for kept, gain in columns]
    shares = [pair[0] / pair[1] if pair and pair[1] > 0 else None for pair in pairs]
    kept, gain = np.array([pair for pair in pairs if pair], np.float64).reshape(-1, 2).T
    if not len(gain) or gain.mean() <= 0:
        return {"mean": None, "ci95": None, "n": 0, "values": shares}
    ratio = float(kept.mean() / gain.mean())
    half = mean_interval((kept - ratio * gain).tolist())["ci95"]
    ci95 = None if half is None else float(half / gain.mean())
    return {"mean": ratio, "ci95": ci95, "n": len(gain), "values": shares}
