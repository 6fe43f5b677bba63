"""Evidence against its exact distribution, published run lengths and SciPy; quarantine as a pure state."""

import json
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from fedmd.config import QuarantineConfig
from fedmd.defense.evidence import Evidence, Ranks, increments, ranked_among, ranked_by_class
from fedmd.defense.quarantine import Quarantine

CONFIG = QuarantineConfig(name="evidence", shift=0.2, false_alarms=6.7379)  # a limit of 5 nats
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12).map(np.array)


def outranking(sent: np.ndarray, trusted: np.ndarray) -> float:
    return float(ranked_among(sent, trusted).place.mean())


def increment_of(ranks: Ranks, shift: float) -> float:
    (ratio,) = increments(np.zeros(len(ranks.place), np.int64), ranks, shift).values()
    return ratio


def increment(sent: np.ndarray, trusted: np.ndarray, shift: float) -> float:
    return increment_of(ranked_among(sent, trusted), shift)


@settings(deadline=None)
@given(scores, scores)
def test_outranking_is_mann_whitney(sent: np.ndarray, trusted: np.ndarray) -> None:
    statistic = mannwhitneyu(sent, trusted).statistic
    assert outranking(sent, trusted) == pytest.approx(statistic / (len(sent) * len(trusted)))


def test_outranking_by_hand() -> None:
    trusted = np.array([1.0, 2.0, 3.0, 4.0])
    assert outranking(np.array([2.5]), trusted) == 0.5
    assert outranking(np.array([2.0]), trusted) == 1.5 / 4  # a tie counts half
    assert outranking(np.array([9.0, 0.0]), trusted) == 0.5
    assert outranking(np.array([np.nan, np.inf]), trusted) == 1.0  # what is no number is as strange as can be
    for empty in ((np.zeros(0), trusted), (trusted, np.zeros(0))):
        with pytest.raises(ValueError, match="at least one"):
            outranking(*empty)


def test_increment_is_the_normal_log_likelihood_ratio() -> None:
    rng = np.random.default_rng(0)
    sent, trusted = rng.normal(0.5, 1, 20), rng.normal(0, 1, 50)
    r, sd = outranking(sent, trusted), math.sqrt(71 / (12 * 20 * 50))

    def log_density(mean: float) -> float:
        return -((r - mean) ** 2) / (2 * sd**2)

    assert increment(sent, trusted, 0.2) == pytest.approx(log_density(0.7) - log_density(0.5))


@lru_cache
def counts(n: int, m: int) -> tuple[int, ...]:
    """How many of the orders of n + m scores have U = 0, 1, ..., n m (Mann and Whitney's recursion)."""
    if n == 0 or m == 0:
        return (1,)
    total = [0] * (n * m + 1)
    for u, count in enumerate(counts(n - 1, m)):  # the largest score is one of the n: it beats all m
        total[u + m] += count
    for u, count in enumerate(counts(n, m - 1)):
        total[u] += count
    return tuple(total)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 30), (2, 3), (5, 5), (10, 20), (20, 10), (25, 40)])
@pytest.mark.parametrize("shift", [0.05, 0.2, 0.5])
def test_an_honest_clients_likelihood_ratio_has_mean_at_most_1(n: int, m: int, shift: float) -> None:
    """Exactly, over all orders: what the bound on false alarms rests on."""
    orders = counts(n, m)
    trusted = np.arange(m) + 0.5
    variance = (n + m + 1) / (12 * n * m)
    mean = sum(
        count * math.exp(shift * (u / (n * m) - 0.5 - shift / 2) / variance) for u, count in enumerate(orders)
    ) / math.comb(n + m, n)
    assert mean <= 1 + 1e-12
    every = [np.full(n, float(place)) for place in range(m + 1)]  # U = n * place
    for sent in every:
        expected = shift * (sent[0] / m - 0.5 - shift / 2) / variance
        assert increment(sent, trusted, shift) == pytest.approx(expected)


def run_lengths(draw_trusted: bool, limit: float, runs: int, n: int, m: int, above: float = 0.0) -> np.ndarray:
    """Rounds to the first alarm, of `runs` clients at once, capped at 3000; scores uniform, shifted by `above`."""
    rng = np.random.default_rng(7)
    lengths = np.full(runs, 3000)
    for run in range(runs):
        evidence, trusted = Evidence(), np.sort(rng.random(m))
        for round in range(3000):
            if draw_trusted:
                trusted = rng.random(m)
            sent = rng.random(n) + above
            evidence = evidence.after(np.full(n, 4), ranked_among(sent, trusted), 0.2)
            if evidence.of(4) > limit:
                lengths[run] = round + 1
                break
    return lengths


@pytest.mark.parametrize("draw_trusted", [True, False])
def test_rounds_to_a_false_alarm(draw_trusted: bool) -> None:
    """Lorden's bound: exp(limit) on average. Capping at 3000 only lowers the mean. One trusted set or fresh ones."""
    lengths = run_lengths(draw_trusted, limit=4.0, runs=24, n=4, m=100)
    assert lengths.mean() > math.exp(4.0)
    assert lengths.min() < 3000  # the bound is one of a test that does alarm


def test_rounds_to_detection() -> None:
    """Uniform scores moved up by a quarter: r = 1 - 0.75^2 / 2 = 0.72, found within a few rounds of 10 samples."""
    lengths = run_lengths(False, limit=10.0, runs=30, n=10, m=200, above=0.25)
    r, variance = 1 - 0.75**2 / 2, 211 / (12 * 10 * 200)
    per_round = 0.2 * (r - 0.6) / variance
    assert lengths.max() < 60
    assert lengths.mean() == pytest.approx(10 / per_round, rel=0.5)  # Wald: limit / drift, plus the overshoot


def test_a_tolerated_shift_never_adds_up() -> None:
    """r = 0.55, half of what is tolerated: an unlike but honest client, whose evidence falls on average."""
    lengths = run_lengths(False, limit=25.0, runs=6, n=10, m=2000, above=1 - math.sqrt(2 * 0.45))
    assert (lengths == 3000).all()


def honest_increments(clients: int, rounds: int, n: int = 10, m: int = 200) -> np.ndarray:
    """[rounds, clients] increments of honest clients, by the definitions alone; every client has a trusted set."""
    rng = np.random.default_rng(3)
    trusted = rng.random((clients, 1, m))
    variance, shift = (n + m + 1) / (12 * n * m), 0.2
    r = np.stack([(rng.random((clients, n, 1)) > trusted).mean(axis=(1, 2)) for _ in range(rounds)])
    return shift * (r - 0.5 - shift / 2) / variance


INCREMENTS = honest_increments(clients=400, rounds=100)  # 40,000 client-rounds


@pytest.mark.parametrize("stated", [300.0, 50.0, 10.0, 1.0])
def test_false_alarms_are_at_most_as_many_as_stated(stated: float) -> None:
    """Accused and begun anew, by a naive loop; how many in 1,000 client-rounds."""
    limit = QuarantineConfig(name="evidence", false_alarms=stated).limit
    assert limit == pytest.approx(math.log(1000 / stated))
    alarms, against = 0, np.zeros(INCREMENTS.shape[1])
    for added in INCREMENTS:
        against = np.maximum(0, against + added)
        alarms += int((against > limit).sum())
        against[against > limit] = 0
    per_1000 = 1000 * alarms / INCREMENTS.size
    assert per_1000 <= stated
    assert per_1000 > 0 or stated <= 1  # the test can alarm


@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_villes_inequality(alpha: float) -> None:
    """The product of honest likelihood ratios is a supermartingale: it ever passes 1 / alpha with a chance of alpha."""
    passed = (INCREMENTS.cumsum(axis=0) >= math.log(1 / alpha)).any(axis=0).mean()
    assert 0 < passed <= alpha


def test_evidence_is_the_naive_sum() -> None:
    rng = np.random.default_rng(4)
    trusted, evidence, against = rng.random(30), Evidence(), {1: 0.0, 2: 0.0}
    for _ in range(40):
        sent = {client: rng.random(5) + client / 8 for client in against}
        ranks = ranked_among(np.concatenate([*sent.values()]), trusted)
        evidence = evidence.after(np.repeat([1, 2], 5), ranks, 0.2)
        for client, scores in sent.items():
            r = sum(s > t for s in scores for t in trusted) / (5 * 30)
            against[client] = max(0.0, against[client] + 0.2 * (r - 0.5 - 0.1) / (36 / (12 * 5 * 30)))
    assert {client: evidence.of(client) for client in against} == pytest.approx(against)
    assert against[2] > against[1]


def test_evidence_is_kept_per_client() -> None:
    trusted = np.linspace(0, 1, 50)
    clients = np.array([3, 3, 8, 8])
    sent = np.array([2.0, 2.0, -1.0, -1.0])
    evidence = Evidence({5: 1.5}).after(clients, ranked_among(sent, trusted), 0.2)
    assert evidence.of(3) == pytest.approx(increment(sent[:2], trusted, 0.2)) and evidence.of(3) > 0
    assert evidence.of(8) == 0.0 and evidence.of(5) == 1.5 and evidence.of(6) == 0.0
    twice = evidence.after(clients, ranked_among(sent, trusted), 0.2)
    assert twice.of(3) == pytest.approx(2 * evidence.of(3))
    assert twice.without(frozenset({3})).of(3) == 0.0 and twice.without(frozenset({3})).of(5) == 1.5


def test_ranks_do_not_see_the_scale() -> None:
    rng = np.random.default_rng(1)
    sent, trusted = rng.normal(size=30), rng.normal(size=60)
    assert increment(np.exp(sent), np.exp(trusted), 0.1) == increment(sent, trusted, 0.1)


# -- by class --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data())
def test_ranks_by_class_are_a_naive_loops(data: st.DataObject) -> None:
    sent, trusted = data.draw(scores), data.draw(scores)
    classes = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(sent), max_size=len(sent))))
    of_trusted = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(trusted), max_size=len(trusted))))
    ranks = ranked_by_class(sent, classes, trusted, of_trusted)
    variance = luck = 0.0
    known = np.where(np.isin(classes, of_trusted), classes, -1)
    for at, (score, claimed) in enumerate(zip(sent, known, strict=True)):
        compared = [t for t, c in zip(trusted, of_trusted, strict=True) if claimed in (c, -1)]
        assert ranks.place[at] == pytest.approx(
            sum(1.0 if t < score else 0.5 if t == score else 0.0 for t in compared) / len(compared)
        )
        variance += ((known == claimed).sum() + len(compared) + 1) / (12 * len(compared)) / len(sent) ** 2
        luck += (known == claimed).sum() / (12 * len(compared)) / len(sent) ** 2
    r = ranks.place.mean()
    assert increment_of(ranks, 0.2) == pytest.approx(0.2 * (r - math.sqrt(luck) - 0.6) / variance)


def test_clients_at_once_are_as_one_by_one() -> None:
    rng = np.random.default_rng(6)
    clients, sent, classes = rng.integers(0, 5, 60), rng.random(60), rng.integers(0, 4, 60)
    trusted, of_trusted = rng.random(40), rng.integers(0, 3, 40)
    found = increments(clients, ranked_by_class(sent, classes, trusted, of_trusted), 0.2)
    for client in range(5):
        mine = clients == client
        alone = increment_of(ranked_by_class(sent[mine], classes[mine], trusted, of_trusted), 0.2)
        assert found[client] == pytest.approx(alone)


def test_one_class_is_all_but_for_the_trusted_sets_luck() -> None:
    rng = np.random.default_rng(2)
    sent, trusted = rng.random(10), rng.random(200)
    ranks = ranked_by_class(sent, np.full(10, 3), trusted, np.full(200, 3))
    variance = 211 / (12 * 10 * 200)
    assert increment_of(ranks, 0.2) == pytest.approx(
        increment(sent, trusted, 0.2) - 0.2 / math.sqrt(12 * 200) / variance
    )


@pytest.mark.parametrize("stated", [50.0, 10.0, 1.0])
def test_a_client_of_strange_classes_is_accused_no_more_often_than_stated(stated: float) -> None:
    """Classes whose scores differ by far; each client has two of ten. Compared with all, they are accused for it."""
    rng, rounds, n, limit = np.random.default_rng(5), 60, 10, math.log(1000 / stated)
    alarms = {"by class": 0, "among all": 0}
    for client in range(80):
        of_trusted = np.repeat(np.arange(10), 20)
        trusted = rng.random(200) + of_trusted
        two = rng.choice(10, 2, replace=False)
        against = dict.fromkeys(alarms, Evidence())
        for _ in range(rounds):
            classes = rng.choice(two, n)
            sent = rng.random(n) + classes
            of = {
                "by class": ranked_by_class(sent, classes, trusted, of_trusted),
                "among all": ranked_among(sent, trusted),
            }
            for how, ranks in of.items():
                against[how] = against[how].after(np.full(n, client), ranks, 0.2)
                if against[how].of(client) > limit:
                    alarms[how] += 1
                    against[how] = Evidence()
    assert alarms["by class"] * 1000 <= stated * 80 * rounds < alarms["among all"] * 1000


# -- quarantine -----------------------------------------------------------------------------------------------------

TRUSTED = np.linspace(0, 1, 100)
HIGH, LOW = np.full(10, 2.0), np.full(10, -1.0)


def after(state: Quarantine, round: int, client: int, sent: np.ndarray) -> Quarantine:
    return state.after(round, np.full(len(sent), client), ranked_among(sent, TRUSTED), CONFIG)


def test_past_the_limit_a_client_is_in_and_stays() -> None:
    state = after(Quarantine(), 0, 1, LOW)
    assert not state.since
    state = after(after(state, 1, 2, HIGH), 2, 3, HIGH)
    assert state.since == {2: 1, 3: 2}
    assert after(state, 3, 2, LOW).since == {2: 1, 3: 2}
    free = state.without(frozenset({2}))
    assert free.since == {3: 2} and free.evidence.of(2) == 0 and free.evidence.of(3) > 0


def test_a_quarantine_ends_after_its_rounds() -> None:
    state = after(Quarantine(), 4, 1, HIGH)
    config = QuarantineConfig(name="evidence", rounds=3)
    assert [sorted(state.expired(round, config)) for round in range(5, 10)] == [[], [], [], [1], [1]]
    assert not state.expired(10**6, CONFIG)


@given(st.dictionaries(st.integers(0, 99), st.floats(0, 1e3)), st.dictionaries(st.integers(0, 99), st.integers(0, 99)))
def test_a_quarantine_comes_back_from_json(nats: dict[int, float], since: dict[int, int]) -> None:
    quarantine = Quarantine(Evidence(nats), since)
    assert Quarantine.of(json.loads(json.dumps(quarantine.state()))) == quarantine
