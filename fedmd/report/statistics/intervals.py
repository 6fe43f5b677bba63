"""Means over seeds with Student-t and bootstrap intervals, differences and ratios paired by seed."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmd.types import Json

CONFIDENCE = 0.95
RESAMPLES = 2000  # of the bootstrap; its ends are then certain to about a tenth of their distance

Values = list[float | None]  # one a seed, None where the run is missing or the value undefined


def mean_interval(values: Sequence[float | None]) -> Json:
    """{mean, ci95, n, values}: mean ± ci95 is the two-sided 95 % Student-t interval.

        ci95 = t_{0.975, n-1} · s / √n,   s² = Σ (v - mean)² / (n - 1)

    None and non-finite values are dropped from the statistics, but stay in `values` as None, in place, so
    that they line up with the seeds; `n` counts the others. mean is None for n = 0 and ci95 for n < 2.
    """
    from scipy.special import stdtrit  # slow to import, if less so than scipy.stats; a single run has no intervals

    kept = [None if value is None or not math.isfinite(value) else float(value) for value in values]
    numbers = np.array([value for value in kept if value is not None], np.float64)
    n = len(numbers)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * numbers.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return {"mean": float(numbers.mean()) if n else None, "ci95": half, "n": n, "values": kept}


def difference(first: float | None, second: float | None) -> float | None:
    """`first - second`; None when either is."""
    return None if first is None or second is None else first - second


def subtract(first: Values, second: Values) -> Values:
    """`first - second` seed by seed."""
    return [difference(a, b) for a, b in zip(first, second, strict=True)]


def paired_intervals(differences: Sequence[Values], limit: float = math.inf) -> list[Json]:
    """{mean, ci95, low, high, bootstrap, n, values} of each row of differences, seed by seed.

    `low` and `high` are the ends of the t-interval (see `mean_interval`), cut at -limit and limit where no difference
    can lie beyond (1, for shares); None for n < 2. `bootstrap` {low, high} are those of the bias-corrected and
    accelerated bootstrap (Efron, JASA 1987), which follows the skewness that a t-interval ignores but is too narrow for
    very few seeds; None for n < 3. It draws the same resamples at every call.
    """
    results = [mean_interval(row) for row in differences]
    for interval, resampled in zip(results, _bootstrap([each["values"] for each in results]), strict=True):
        mean, half = interval["mean"], interval["ci95"]
        low, high = (None, None) if half is None else (max(mean - half, -limit), min(mean + half, limit))
        interval |= {"low": low, "high": high, "bootstrap": resampled}
    return results


def _bootstrap(rows: Sequence[Values]) -> list[Json]:
    """{low, high} of the mean of each row; rows that miss the same seeds are resampled together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(tuple(j for j, value in enumerate(row) if value is not None), []).append(i)
    results: list[Json] = [{"low": None, "high": None} for _ in rows]
    for present, members in groups.items():
        if len(present) < 3:
            continue
        data = np.array([[rows[i][j] for j in present] for i in members], np.float64)
        for i, (low, high) in zip(members, _bca(data), strict=True):
            results[i] = {"low": float(low), "high": float(high)}
    return results


def _bca(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ends [m, 2] for the means of `data` [m, n]; of a row of equal numbers, that number twice."""
    ends = np.repeat(data.mean(axis=1, keepdims=True), 2, axis=1)
    varied = np.ptp(data, axis=1) > 0
    if varied.any():
        from scipy.stats import bootstrap  # slow to import

        found = bootstrap(
            (data[varied],),
            np.mean,
            axis=1,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=100,
            confidence_level=CONFIDENCE,
            method="BCa",
            random_state=np.random.default_rng(0),
        ).confidence_interval
        ends[varied] = np.stack([found.low, found.high], axis=1)
    return ends


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
