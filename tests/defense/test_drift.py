"""The drift warning: quiet on exchangeable traffic as often as it says, and loud when the rate moves."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, betabinom, binom, norm

from fedmd.defense.samples.drift import ALPHA, DriftMonitor, _beta_binomial, drift, pooled_calibration
from fedmd.defense.samples.pooling import pooled_trusted
from fedmd.defense.samples.thresholds import conformal_quantile


@pytest.mark.parametrize("n", [19, 199])
def test_the_tail_is_a_binomial_mixed_over_the_trusted_sets_chance(n: int) -> None:
    """P(X >= k) integrated over Beta((n + 1) fpr, (n + 1)(1 - fpr)); the warning starts where 2 P < ALPHA."""
    judged, promised = 300, 0.1
    rate = beta((n + 1) * promised, (n + 1) * (1 - promised))

    def tail(alarms: int) -> float:
        return float(quad(lambda p: binom.sf(alarms - 1, judged, p) * rate.pdf(p), 0, 1, limit=200)[0])

    first = next(k for k in range(judged) if k > 30 and 2 * tail(k) < ALPHA)
    assert drift(first - 1, judged, promised=promised, calibration=n) is None
    warned = drift(first, judged, promised=promised, calibration=n)
    assert warned is not None and (warned.rate, warned.promised) == (first / judged, promised)


@pytest.mark.parametrize(("n", "a", "b"), [(0, 1.0, 1.0), (30, 2.5, 180.0), (1000, 20.1, 180.9)])
def test_the_beta_binomial_is_scipys(n: int, a: float, b: float) -> None:
    np.testing.assert_allclose(_beta_binomial(n, a, b), betabinom(n, a, b).pmf(np.arange(n + 1)), rtol=1e-9)


@pytest.mark.parametrize(("alarms", "warns"), [(0, True), (100, False), (300, True)])
def test_both_sides(alarms: int, warns: bool) -> None:
    assert (drift(alarms, 1000, promised=0.1, calibration=500) is not None) == warns


@pytest.mark.parametrize(("judged", "promised", "calibration"), [(0, 0.1, 50), (9, 0.0, 50), (9, 1.0, 50), (9, 0.1, 0)])
def test_no_promise_no_warning(judged: int, promised: float, calibration: float) -> None:
    assert drift(judged, judged, promised=promised, calibration=calibration) is None


def warned_runs(stopping: str, scale: float, runs: int) -> float:
    """Share of runs that warn: 25 rounds of 10 messages of 10 exponential samples, threshold of 200 trusted ones."""
    warned = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        trusted = torch.from_numpy(rng.exponential(1, 200))
        clients = torch.arange(10).repeat_interleave(10)
        reference = pooled_trusted(trusted, stopping, clients, 100)  # type: ignore[arg-type]
        threshold = conformal_quantile(reference, 0.1)
        monitor = DriftMonitor(0.1, 200)
        seen = []
        for _ in range(25):
            scores = rng.exponential(scale, (10, 10))
            held = scores.ravel() if stopping == "per_sample" else scores.mean(axis=1)
            seen.append(monitor.observe(int((held > threshold).sum()), len(held), 100))
        warned += any(one is not None for one in seen)
    return warned / runs


@pytest.mark.parametrize("stopping", ["per_sample", "per_client"])
def test_quiet_on_exchangeable_traffic_and_loud_on_drift(stopping: str) -> None:
    # 25 windows of ALPHA each, for means by normal theory only: rarely one of 60 runs
    assert warned_runs(stopping, 1.0, runs=60) <= 1 / 60
    assert warned_runs(stopping, 2.0, runs=4) == 1.0
    # ten rounds of ten messages are too few to tell 0 % from 10 %, given what 200 trusted samples say of means
    assert warned_runs(stopping, 0.2, runs=4) == (1.0 if stopping == "per_sample" else 0.0)


def test_a_binomial_alone_would_cry_wolf() -> None:
    """Why the trusted set's size is in the model: its one chance error stays for the run."""
    rng = np.random.default_rng(0)
    rates = rng.beta(201 * 0.1, 201 * 0.9, 500)
    alarms = rng.binomial(1000, rates)
    naive = np.mean([2 * min(binom.sf(k - 1, 1000, 0.1), binom.cdf(k, 1000, 0.1)) < ALPHA for k in alarms])
    ours = np.mean([drift(int(k), 1000, promised=0.1, calibration=200) is not None for k in alarms])
    assert naive > 0.03 and ours < 0.005


def test_only_the_latest_rounds_count() -> None:
    monitor = DriftMonitor(0.1, 200)
    for _ in range(30):
        assert monitor.observe(10, 100, 100) is None
    seen = [monitor.observe(60, 100, 100) for _ in range(10)]
    assert seen[0] is None and seen[-1] is not None and seen[-1].rate == 0.6
    after = [monitor.observe(10, 100, 100) for _ in range(10)]
    assert after[0] is not None and after[-1] is None


def test_what_trusted_samples_are_worth_to_means() -> None:
    """By simulation: the variance of the realised rate of normal means of 10, threshold of 200 samples' mean."""
    rng = np.random.default_rng(1)
    z, message, trusted, promised = 1.2815515655446004, 10, 200, 0.1
    means = rng.normal(0, 1 / np.sqrt(trusted), 20000)
    rates = norm.sf((means + z / np.sqrt(message)) * np.sqrt(message))
    expected = promised * (1 - promised) / rates.var()
    assert pooled_calibration(trusted, message, promised) == pytest.approx(expected, rel=0.15)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(10, 20), st.integers(10, 90)), max_size=25), st.integers(0, 25)
)
def test_a_monitor_goes_on_where_it_was(rounds: list[tuple[int, int, int]], cut: int) -> None:
    whole, half, rest = (DriftMonitor(0.1, 200) for _ in range(3))
    expected = [whole.observe(*each) for each in rounds]
    found = [half.observe(*each) for each in rounds[:cut]]
    rest.restore(json.loads(json.dumps(half.state())))
    assert found + [rest.observe(*each) for each in rounds[cut:]] == expected
