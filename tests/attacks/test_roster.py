"""Who is malicious and when, against a table written by hand."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.attacks.schedule import malicious_clients, phase_of, planned_trigger_round
from fedmd.config import StreamConfig
from fedmd.types import PHASES, Phase

FRACTIONS = st.floats(0, 1)
derandomised = settings(deadline=None, derandomize=True)


def stream(clean: int, accumulative: int, trigger: int, recovery: int) -> StreamConfig:
    return StreamConfig(
        source="fresh",
        batch_size=1,
        clean_rounds=clean,
        accumulative_rounds=accumulative,
        trigger_rounds=trigger,
        recovery_rounds=recovery,
    )


@derandomised
@given(clients=st.integers(1, 300), fraction=FRACTIONS, seed=st.integers(0, 2**40))
def test_pool_has_the_right_size_and_real_clients(clients: int, fraction: float, seed: int) -> None:
    pool = malicious_clients(clients, fraction, seed)
    assert abs(len(pool) - fraction * clients) <= 0.5
    assert list(pool) == sorted(set(pool))
    assert all(0 <= client < clients for client in pool)


@pytest.mark.parametrize(
    ("clients", "fraction", "size"),
    [(10, 0.2, 2), (10, 0.26, 3), (10, 0.0, 0), (10, 1.0, 10), (3, 0.34, 1), (4, 0.1, 0), (1, 1.0, 1), (100, 0.29, 29)],
)
def test_pool_size_by_hand(clients: int, fraction: float, size: int) -> None:
    assert len(malicious_clients(clients, fraction, 0)) == size


@derandomised
@given(clients=st.integers(1, 200), fractions=st.tuples(FRACTIONS, FRACTIONS), seed=st.integers(0, 2**40))
def test_pools_are_nested(clients: int, fractions: tuple[float, float], seed: int) -> None:
    small, large = (set(malicious_clients(clients, fraction, seed)) for fraction in sorted(fractions))
    assert small <= large


def test_pool_is_fixed_by_the_seed_and_drawn_evenly() -> None:
    assert malicious_clients(50, 0.3, 7) == malicious_clients(50, 0.3, 7)
    counts = [0] * 10
    for seed in range(2000):
        for client in malicious_clients(10, 0.3, seed):
            counts[client] += 1
    # 600 expected each, standard deviation sqrt(2000 * 0.3 * 0.7) = 20.5: five of them
    assert all(abs(count - 600) < 103 for count in counts), counts


C, A, T, R = PHASES

# (clean, accumulative, trigger, recovery), announced round, the phase of every round
TABLE: list[tuple[tuple[int, int, int, int], int | None, list[Phase]]] = [
    ((2, 3, 1, 2), None, [C, C, A, A, A, T, R, R]),
    ((2, 3, 1, 2), 5, [C, C, A, A, A, T, R, R]),  # the planned round
    ((2, 3, 1, 2), 3, [C, C, A, T, R, R, R, R]),  # early: recovery lasts longer, the run does not
    ((2, 3, 1, 2), 2, [C, C, T, R, R, R, R, R]),  # at once
    ((2, 3, 2, 2), 3, [C, C, A, T, T, R, R, R, R]),
    ((0, 2, 1, 0), None, [A, A, T]),
    ((1, 0, 1, 1), None, [C, T, R]),
    ((1, 0, 2, 0), None, [C, T, T]),
    ((2, 2, 0, 1), None, [C, C, A, A, R]),  # accumulation alone
    ((3, 0, 0, 0), None, [C, C, C]),
]


@pytest.mark.parametrize(("lengths", "announced", "expected"), TABLE)
def test_phases(lengths: tuple[int, int, int, int], announced: int | None, expected: list[Phase]) -> None:
    config = stream(*lengths)
    assert config.rounds == len(expected)
    assert [phase_of(config, round, announced) for round in range(config.rounds)] == expected


def test_planned_trigger_is_the_first_round_of_its_phase() -> None:
    config = stream(2, 3, 1, 2)
    assert phase_of(config, planned_trigger_round(config)) == "trigger"
    assert phase_of(config, planned_trigger_round(config) - 1) == "accumulative"


def test_phase_names() -> None:
    assert get_args(Phase) == PHASES == ("clean", "accumulative", "trigger", "recovery")
