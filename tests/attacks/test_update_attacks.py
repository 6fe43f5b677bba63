"""Update attacks against byzfl's, SciPy and hand-computed numbers."""

import byzfl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from fedmd.attacks.accumulative_update import add_push
from fedmd.attacks.base import Attack, Knowledge
from fedmd.attacks.catalogue.alie import alie_z
from fedmd.attacks.coalition import visible
from fedmd.attacks.distances import min_max, min_sum
from fedmd.registry import ATTACKS

HONEST = torch.tensor([[1.0, 2.0, -3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 3.0]])
OWN = torch.tensor([0.5, -1.0, 2.0])


def know(**changes: object) -> Knowledge:
    values: dict[str, object] = {
        "own": OWN,
        "honest": HONEST,
        "clients": 10,
        "colluders": 3,
        "generator": torch.Generator().manual_seed(0),
        "phase": "accumulative",
        "situation": None,
    }
    return Knowledge(**(values | changes))  # type: ignore[arg-type]


def send(name: str, params: dict[str, object] | None = None, **changes: object) -> Tensor:
    plugin: type[Attack] = ATTACKS.resolve(name)  # type: ignore[assignment]
    return plugin(plugin.Params.model_validate(params or {})).update(None, know(**changes))  # type: ignore[arg-type]


def pushed(scale: float = 1.0, norm_bound: float | None = 1.0, honest: Tensor = HONEST) -> Tensor:
    return add_push(OWN, torch.tensor([0.0, 0.3, 0.4]), honest, scale, norm_bound)


# the accumulative one trains, PoisonedFL remembers the rounds before: see test_update_coalition and test_poisoned_fl
PURE = [p.name for p in ATTACKS.own() if "update" in p.modes and p.name not in ("none", "accumulative", "poisoned_fl")]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99), st.floats(0, 4))
def test_byzfls_definitions_where_they_are_the_same(n: int, d: int, seed: int, scale: float) -> None:
    """byzfl adds τ σ and we subtract z σ; its sign flip is ours for a client that knows one update, its own."""
    honest = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    changes = {"own": honest[0], "honest": honest}
    assert torch.allclose(
        send("alie", {"scale": scale}, **changes), byzfl.ALittleIsEnough(tau=-scale)(honest), atol=1e-6
    )
    assert torch.allclose(
        send("ipm", {"scale": scale}, **changes), byzfl.InnerProductManipulation(tau=scale)(honest), atol=1e-6
    )
    flipped = send("sign_flip", **changes)
    assert torch.equal(flipped, byzfl.SignFlipping()(honest[:1]))


@pytest.mark.parametrize(
    ("clients", "colluders", "share"),
    [
        (50, 24, 24 / 26),  # the paper's example: s = 26 − 24 = 2
        (50, 12, 24 / 38),  # s = 14
        (11, 5, 5 / 6),  # s = ⌊6.5⌋ − 5 = 1
        (10, 3, 4 / 7),  # s = 6 − 3
    ],
)
def test_z_of_alie_by_hand(clients: int, colluders: int, share: float) -> None:
    assert alie_z(clients, colluders) == pytest.approx(float(norm.ppf(share)))


def test_the_papers_own_z() -> None:
    assert alie_z(50, 24) == pytest.approx(1.43, abs=0.005)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_z_is_finite_and_never_negative(counts: tuple[int, int]) -> None:
    assert 0 <= alie_z(*counts) < 4


def test_alie_takes_z_from_the_counts() -> None:
    expected = byzfl.ALittleIsEnough(tau=-float(norm.ppf(4 / 7)))(HONEST)
    assert torch.allclose(send("alie"), expected)


def test_alie_of_a_lone_update_is_that_update() -> None:
    assert torch.equal(send("alie", {"scale": 1.5}, honest=OWN[None]), OWN)


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("sign_flip", None, [-0.5, 1.0, -2.0]),
        ("sign_flip", 3.0, [-1.5, 3.0, -6.0]),
        ("label_flip", None, [0.5, -1.0, 2.0]),
        ("ipm", None, [-8.0, -10.0, -4.0]),  # the mean is 4, 5, 2
        ("ipm", 0.5, [-2.0, -2.5, -1.0]),
        ("replacement", None, [0.5 * 10 / 3, -10 / 3, 20 / 3]),
        ("replacement", 4.0, [2.0, -4.0, 8.0]),
        ("alie", 1.0, [1.0, 2.0, 2 - 21**0.5]),  # deviations of 3, 3 and sqrt((25 + 16 + 1) / 2)
    ],
)
def test_by_hand(name: str, scale: float | None, expected: list[float]) -> None:
    assert send(name, {} if scale is None else {"scale": scale}).tolist() == pytest.approx(expected)


def test_a_push_by_hand() -> None:
    assert pushed().tolist() == pytest.approx([0.5, -0.7, 2.4])
    assert pushed(10.0).tolist() == pytest.approx([0.5, 2.0, 6.0])


def test_replacement_puts_the_backdoored_model_in_the_averages_place() -> None:
    """n = 10 of which m = 3 trained alike, the honest ones converged: the mean of all updates is the backdoor's."""
    sent = torch.stack([send("replacement")] * 3 + [torch.zeros(3)] * 7)
    assert torch.allclose(sent.mean(dim=0), OWN)


def test_the_accumulative_update_is_no_longer_than_the_median_honest_one() -> None:
    """Norms of HONEST: sqrt 14, sqrt 77, sqrt 122; the median is sqrt 77, whatever the factor makes of it."""
    bounded = pushed(1e4)
    assert float(bounded.norm()) == pytest.approx(77**0.5)
    assert float(pushed(1e4, 0.5).norm()) == pytest.approx(77**0.5 / 2)
    free = pushed(1e4, None)
    assert free.tolist() == pytest.approx([0.5, 2999.0, 4002.0])
    assert torch.allclose(bounded / bounded.norm(), free / free.norm())


@pytest.mark.parametrize(("name", "default"), [("gaussian", 10.0), ("free_rider", 0.1)])
def test_noise_is_white_and_as_long_as_said(name: str, default: float) -> None:
    generator = torch.Generator().manual_seed(1)
    honest = 0.02 * torch.randn(4, 20_000, generator=generator)
    changes = {"own": honest[0], "honest": honest}
    drawn = send(name, **changes)
    assert float(drawn.std()) == pytest.approx(default * 0.02, rel=0.03)
    assert abs(float(drawn.mean())) < 4 * default * 0.02 / 20_000**0.5
    assert abs(float(torch.corrcoef(torch.stack([drawn, honest[0]]))[0, 1])) < 0.03
    assert torch.equal(send(name, **changes), drawn)
    other = send(name, **changes, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(other, drawn)
    assert torch.equal(send(name, {"scale": 0.0}, **changes), torch.zeros(20_000))


def test_min_max_and_min_sum_are_reached_with_their_perturbation() -> None:
    assert torch.equal(send("min_max", {"perturbation": "inverse_sign"}), min_max(HONEST, "inverse_sign"))
    assert torch.equal(send("min_sum", {"perturbation": "inverse_unit"}), min_sum(HONEST, "inverse_unit"))
    assert torch.equal(send("min_sum"), min_sum(HONEST, "inverse_std"))


@pytest.mark.parametrize("name", PURE)
def test_every_attack_leaves_what_it_was_given_alone(name: str) -> None:
    own, honest = OWN.clone(), HONEST.clone()
    sent = send(name, own=own, honest=honest)
    assert sent.shape == OWN.shape and sent.dtype == OWN.dtype and bool(sent.isfinite().all())
    assert torch.equal(own, OWN) and torch.equal(honest, HONEST)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(PURE), st.permutations(range(3)), st.floats(1e-3, 1e3))
def test_order_does_not_matter_and_scaling_goes_through(name: str, order: list[int], factor: float) -> None:
    plain = send(name)
    assert torch.allclose(send(name, honest=HONEST[order]), plain, rtol=1e-4)
    scaled = send(name, own=factor * OWN, honest=factor * HONEST)
    assert torch.allclose(scaled, factor * plain, rtol=1e-4, atol=1e-6 * factor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"honest": OWN}, r"honest must be \[n, d\]"),
        ({"honest": torch.zeros(0, 3)}, r"got \[0, 3\]"),
        ({"honest": torch.zeros(2, 4)}, r"got \[2, 4\], \[3\]"),
        ({"colluders": 0}, "got 0 of 10"),
        ({"colluders": 11}, "got 11 of 10"),
    ],
)
def test_knowledge_that_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        know(**changes)


def test_colluders_see_their_own_updates_or_everybodys_in_the_order_of_ids() -> None:
    updates = {7: HONEST[2], 0: HONEST[0], 3: HONEST[1]}
    assert torch.equal(visible(updates, (3, 7, 9)), HONEST[1:])
    assert torch.equal(visible(updates, range(9)), HONEST)
    with pytest.raises(ValueError, match="none of the updates"):
        visible(updates, (9,))
