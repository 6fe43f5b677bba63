"""The sentence at the top: hand-computed numbers, honest where there is nothing to tell, one seed, several attacks."""

from typing import Any

import pytest

from fedmd.report.answer import ONE_SEED, run_answer, study_answer, sweep_answer
from fedmd.report.statistics.comparison import ArmInfo, compare
from fedmd.types import Json

ARMS = {
    "no_attack": ArmInfo("no attack", "undefended", False, "none"),
    "undefended": ArmInfo("undefended", "undefended", True, "flip"),
    "dsc": ArmInfo("DSC", "dsc", True, "flip"),
    "dsc_clean": ArmInfo("DSC, no attack", "dsc", False, "none"),
}


def summary(final: float, tpr: float | None = None, fpr: float | None = None) -> Json:
    return {
        "rounds": 4,
        "config": {},
        "accuracy": {"burn_in": 0.7, "before_attack": 0.8, "final": final},
        "detection": {"flagged": {"tpr": tpr, "fpr": fpr}, "sample": {"auroc": None}},
        "defense": {"corrected_share": 0.1 if tpr is not None else 0.0, "rejected_share": 0.0},
        "malicious_clients": [1],
    }


def study(seeds: int = 3, loss: float = 0.1, gain: float = 0.06, **more: Any) -> str:
    """The no-attack arm ends at 0.9 and a little noise; every other arm differs from it by the same in every seed."""
    ends = [0.9 + 0.01 * seed for seed in range(seeds)]
    runs = {
        "no_attack": {seed: summary(end) for seed, end in enumerate(ends)},
        "undefended": {seed: summary(end - loss - 0.002 * seed) for seed, end in enumerate(ends)},
        "dsc": {seed: summary(end - loss + gain, 0.71, 0.08) for seed, end in enumerate(ends)},
        "dsc_clean": {seed: summary(end - 0.003) for seed, end in enumerate(ends)},
    }
    return study_answer(compare(runs, ARMS, **more))


def test_it_says_cost_recovery_flags_and_price() -> None:
    """Losses 10, 10.2, 10.4: mean 10.2, t(2) = 4.303, half width 4.303 * 0.2 / sqrt(3) = 0.5."""
    assert study() == (
        "The attack costs 10.2 points (95 % 9.7 to 10.7, 3 seeds); DSC recovers 61 % of it, flags 71 % of the poison "
        "at 8 % false alarms, and costs 0.3 points when nobody attacks."
    )


def test_it_is_honest() -> None:
    assert study(seeds=1).endswith(ONE_SEED) and "95 %" not in study(seeds=1)
    assert "which is not told from nothing; DSC ends 6." in study(loss=0.0)
    assert "DSC ends 4.8 points" in study(gain=-0.05) and "lower still" in study(gain=-0.05)
    assert study_answer(compare({"no_attack": {0: summary(0.9)}}, ARMS)) == ONE_SEED  # nobody attacks
    alike = compare({arm: {0: summary(final)} for arm, final in (("undefended", 0.2), ("dsc", 0.9))}, ARMS)
    lies = "Final accuracy lies between 20.0 % (undefended) and 90.0 % (DSC)."  # nothing to say what the attack costs
    assert study_answer(alike) == f"{lies} {ONE_SEED}"
    assert study(baseline="missing").startswith("Final accuracy lies between")


def test_of_a_run() -> None:
    told = run_answer(summary(0.55, 0.71, 0.08))
    assert told == (
        "Attacked, accuracy ends at 55.0 %, 25.0 points lower than before the attack. The defence flagged 71 % of the "
        f"poison at 8 % false alarms. {ONE_SEED}"
    )
    clean = summary(0.85) | {"malicious_clients": []}
    assert run_answer(clean) == f"Nobody attacked; accuracy ends at 85.0 %, from 70.0 % after burn-in. {ONE_SEED}"


@pytest.mark.parametrize(("seeds", "end"), [([0.8], ONE_SEED), ([0.8, 0.9], "over 2 seeds.")])
def test_of_a_sweep(seeds: list[float], end: str) -> None:
    told = sweep_answer({"defense=dsc": seeds, "defense=none": [value - 0.3 for value in seeds]})
    mean = 100 * sum(seeds) / len(seeds)
    assert told.startswith(
        f"Final accuracy lies between {mean - 30:.1f} % (defense=none) and {mean:.1f} % (defense=dsc)."
    )
    assert told.endswith(end)
