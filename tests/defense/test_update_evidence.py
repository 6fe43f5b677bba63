"""Evidence from updates outside their limits: what it is made of, and how rarely it accuses the honest."""

import math
import sys

import numpy as np
import pytest

from fedmd.defense.evidence import Evidence, ranked_among
from fedmd.defense.updates.limits import Limits
from fedmd.defense.updates.screen import UpdateVerdict, decisive, excess
from fedmd.types import Action


def verdict(*values: float, limits: tuple[Limits, ...] = (Limits(1, 4),)) -> UpdateVerdict:
    return UpdateVerdict(1, values, values, 1.0, Action.ACCEPTED, "", limits)


@pytest.mark.parametrize(
    ("value", "expected"), [(2, 0), (4, 0), (8, math.log(2)), (0.25, math.log(4)), (0, sys.float_info.max)]
)
def test_only_what_is_outside_the_limits_counts(value: float, expected: float) -> None:
    assert verdict(value).evidence == pytest.approx(expected)


def test_what_could_not_be_measured_counts_most() -> None:
    assert verdict().evidence == sys.float_info.max


@pytest.mark.parametrize(
    ("values", "expected"),
    [((3, 4), (0, 4)), ((2, 9), (1, 8)), ((1.1, 5), (0, 1)), ((0.1, 9), (0, 1)), ((3.9, 0.5), (1, 2))],
)
def test_decisive(values: tuple[float, ...], expected: tuple[int, float]) -> None:
    limits = (Limits(1, 4), Limits(2, 8))
    which, limit = decisive(values, limits)
    assert (which, limit) == expected
    beyond = math.log(values[which] / limit)
    assert excess(values, limits) == pytest.approx(beyond if limit == limits[which].upper else -beyond)


def test_without_an_upper_limit_nothing_is_near() -> None:
    assert decisive((3.0,), (Limits(0.0, math.inf),)) == (0, math.inf)


@pytest.mark.parametrize("clients", [4, 10])
def test_the_honest_are_rarely_accused(clients: int) -> None:
    """Exchangeable clients, a fifth of them outside the limits in any round: exp(limit) rounds to an alarm or more."""
    rng, limit, rounds = np.random.default_rng(0), 3.0, 4000
    ids, evidence, alarms = np.arange(clients), Evidence(), 0
    for _ in range(rounds):
        scores = np.where(rng.random(clients) < 0.2, rng.exponential(size=clients), 0.0)
        evidence = evidence.after(ids, ranked_among(scores, scores), 0.2)
        caught = frozenset(client for client in range(clients) if evidence.of(client) > limit)
        evidence, alarms = evidence.without(caught), alarms + len(caught)
    assert alarms * math.exp(limit) <= clients * rounds
    assert alarms > 0  # or the bound says nothing here


def test_who_is_outside_again_and_again_is_accused() -> None:
    rng, evidence = np.random.default_rng(0), Evidence()
    for round in range(30):  # two of ten; the others are outside now and then
        scores = np.where(rng.random(10) < 0.1, rng.exponential(size=10), 0.0)
        scores[:2] = rng.exponential(size=2)
        evidence = evidence.after(np.arange(10), ranked_among(scores, scores), 0.2)
        if round == 9:
            assert min(evidence.of(0), evidence.of(1)) > 3 > max(evidence.of(client) for client in range(2, 10))
    assert min(evidence.of(0), evidence.of(1)) > 10 > max(evidence.of(client) for client in range(2, 10))


def test_clients_that_differ_within_the_limits_stay_unaccused() -> None:
    """The same client is farthest from the others in every round, and never outside the limits."""
    evidence = Evidence()
    for _ in range(200):
        scores = np.array([verdict(value).evidence for value in (2.0, 2.1, 2.2, 3.9)])
        evidence = evidence.after(np.arange(4), ranked_among(scores, scores), 0.2)
    assert all(evidence.of(client) == 0 for client in range(4))
