"""The combined detector against counting, and that it sees what either of its parts sees."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmd.config import ConfigError, DefenseConfig
from fedmd.defense.samples.detectors.combined import Combined, p_values
from fedmd.defense.samples.outputs import ModelOutputs, TrustedSamples, TrustedSet, compute_outputs
from fedmd.registry import DETECTORS

numbers = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), min_size=2, max_size=12)


@given(numbers, numbers)
def test_p_values_by_counting(scores: list[float], trusted: list[float]) -> None:
    found = p_values(torch.tensor(scores), torch.tensor(trusted))
    expected = [(1 + sum(other >= score for other in trusted)) / (len(trusted) + 1) for score in scores]
    assert found.tolist() == pytest.approx(expected)


@given(numbers)
def test_a_trusted_sample_is_no_reference_for_itself(trusted: list[float]) -> None:
    found = p_values(torch.tensor(trusted), torch.tensor(trusted), are_trusted=True)
    expected = [
        (1 + sum(other >= score for j, other in enumerate(trusted) if j != i)) / len(trusted)
        for i, score in enumerate(trusted)
    ]
    assert found.tolist() == pytest.approx(expected)


def test_what_is_not_measured_has_no_p_value() -> None:
    assert p_values(torch.tensor([math.nan, 0.0]), torch.tensor([1.0, 2.0])).isnan().tolist() == [True, False]
    assert p_values(torch.tensor([0.0]), torch.tensor([1.0, math.nan])).isnan().all()


def outputs_and_trusted() -> tuple[ModelOutputs, TrustedSet]:
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)))
    rng = torch.Generator().manual_seed(2)
    trusted = TrustedSet(nets[0], nets[1], torch.rand(30, 1, 4, 4, generator=rng), torch.arange(30) % 4)
    x, y = torch.rand(20, 1, 4, 4, generator=rng), torch.arange(20) % 4
    return compute_outputs(nets[0], nets[1], x, y, lambda: trusted.samples), trusted


def by_hand(outputs: ModelOutputs, trusted: TrustedSet, parts: tuple[str, ...]) -> list[float]:
    total = [0.0] * len(outputs.labels)
    for part in parts:
        plugin = DETECTORS.resolve(part)
        detector = plugin(plugin.Params())
        reference = detector(trusted.outputs).tolist()  # type: ignore[operator]
        for i, score in enumerate(detector(outputs).tolist()):  # type: ignore[operator]
            total[i] -= math.log((1 + sum(other >= score for other in reference)) / 31)
    return total


@pytest.mark.parametrize("parts", [("discrepancy", "mahalanobis"), ("current_loss",), ("lid", "discrepancy", "lid")])
def test_fishers_sum_by_hand(parts: tuple[str, ...]) -> None:
    outputs, trusted = outputs_and_trusted()
    detector = Combined(Combined.Params(parts=parts))
    assert detector(outputs).tolist() == pytest.approx(by_hand(outputs, trusted, parts), rel=1e-5)
    own = detector(trusted.outputs)
    assert own.shape == (30,) and bool((own >= 0).all()) and float(own.max()) <= len(parts) * math.log(30) + 1e-5


def test_each_part_measures_the_trusted_set_once() -> None:
    outputs, _ = outputs_and_trusted()
    calls: list[Tensor] = []
    detector = Combined(Combined.Params(parts=("discrepancy",)))
    (part,) = detector._parts

    def counted(given: ModelOutputs) -> Tensor:
        calls.append(given.labels)
        return part(given)

    detector._parts = [counted]  # type: ignore[list-item]
    for _ in range(3):
        detector(outputs)
    assert [len(labels) for labels in calls] == [30, 20, 20, 20]


def test_bad_parts_are_refused_by_name() -> None:
    for parts, words in ((["discrepancy", "lidd"], "'lidd'|lidd"), ([], "at least 1"), (["combined"], "combined")):
        with pytest.raises(ConfigError, match=words) as caught:
            DefenseConfig.of({"name": "drop", "detector": "combined", "detector_params": {"parts": parts}})
        assert str(caught.value).startswith("defense.detector_params.parts")


def test_it_needs_a_trusted_set() -> None:
    outputs, trusted = outputs_and_trusted()
    detector = Combined(Combined.Params())
    alone = ModelOutputs(outputs.historical, outputs.current, outputs.labels, outputs.x, outputs.features)
    bare = TrustedSamples(*(getattr(trusted.samples, key) for key in ("x", "labels", "features")))
    without_scores = ModelOutputs(
        *(getattr(outputs, k) for k in ("historical", "current", "labels")), None, None, lambda: bare
    )
    for given_ in (alone, without_scores):
        with pytest.raises(ValueError, match="trusted must be given"):
            detector(given_)
