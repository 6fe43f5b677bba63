"""Detectors and pooling against hand-written formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmd.config import ConfigError, DefenseConfig
from fedmd.defense.samples.detectors.base import Detector
from fedmd.defense.samples.outputs import ModelOutputs, compute_outputs
from fedmd.defense.samples.pooling import count_alarms, pooled, pooled_trusted


def detector(name: str) -> Detector:
    return DefenseConfig.model_validate({"name": "none", "detector": name}).make_slot("detector")  # type: ignore[no-any-return]


def outputs() -> ModelOutputs:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    return ModelOutputs(logits[0], logits[1], torch.tensor([0, 1, 2, 3, 0, 1]))


@pytest.mark.parametrize(("name", "side"), [("historical_loss", "historical"), ("current_loss", "current")])
def test_losses_are_minus_log_softmax_of_the_label(name: str, side: str) -> None:
    given_outputs = outputs()
    logits = getattr(given_outputs, side)
    expected = [
        -math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
        for row, label in zip(logits.tolist(), given_outputs.labels.tolist(), strict=True)
    ]
    assert detector(name)(given_outputs).tolist() == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100)), min_size=1, max_size=40))
def test_pooling_by_client_is_the_mean_of_its_message(rows: list[tuple[int, float]]) -> None:
    clients = torch.tensor([client for client, _ in rows])
    scores = torch.tensor([score for _, score in rows], dtype=torch.float64)
    expected = [sum(s for c, s in rows if c == client) / sum(c == client for c, _ in rows) for client, _ in rows]
    assert pooled(scores, "per_client", clients).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("strange", [math.inf, math.nan])
def test_one_client_whose_score_is_no_number_spoils_nobody_elses(strange: float) -> None:
    clients = torch.tensor([7, 3, 7, 3])
    held = pooled(torch.tensor([strange, 1.0, 2.0, 4.0]), "per_client", clients)
    assert held[[1, 3]].tolist() == [2.5, 2.5]
    assert not held[[0, 2]].isfinite().any()


def test_pooling_many_clients_takes_memory_for_their_samples_alone() -> None:
    clients = torch.arange(40_000).repeat_interleave(2)  # a column for each of them would take 26 GB
    scores = torch.rand(80_000)
    assert torch.allclose(pooled(scores, "per_client", clients)[::2], scores.view(-1, 2).mean(dim=1))


def test_pooling_by_sample_and_by_batch() -> None:
    scores = torch.tensor([1.0, 2.0, 6.0])
    assert pooled(scores, "per_sample") is scores
    assert pooled(scores, "batch_mean").tolist() == [3.0, 3.0, 3.0]


def test_trusted_scores_are_means_of_as_many_scores_as_a_message_has() -> None:
    scores = torch.linspace(0, 1, 101, dtype=torch.float64) ** 2
    clients = torch.arange(8).repeat_interleave(10)
    assert pooled_trusted(scores, "per_sample", clients, 80) is scores
    by_client = pooled_trusted(scores, "per_client", clients, 80)
    by_batch = pooled_trusted(scores, "batch_mean", clients, 80)
    assert by_client.shape == by_batch.shape == (500,)
    # the standard deviation of a mean of k draws is sigma / sqrt(k); 500 draws tell it to about 3 %
    sigma = float(scores.std(correction=0))
    assert float(by_client.std()) == pytest.approx(sigma / math.sqrt(10), rel=0.15)
    assert float(by_batch.std()) == pytest.approx(sigma / math.sqrt(80), rel=0.15)
    assert torch.equal(by_client, pooled_trusted(scores, "per_client", clients, 80))


def test_computing_outputs_leaves_the_models_as_they_were() -> None:
    models = [nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 3)).train() for _ in range(2)]
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    given_outputs = compute_outputs(models[0], models[1], torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64))
    assert given_outputs.historical.shape == (5, 3) and not given_outputs.historical.requires_grad
    assert all(model.training for model in models)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["kernel_density", "lid", "mahalanobis"])
def test_a_feature_detector_needs_a_linear_layer(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^defense.detector: {name} needs .* allowed: confidence, current_loss, "):
        detector(name).check_model(nn.Conv2d(1, 2, 3))
    detector(name).check_model(nn.Linear(2, 2))
    detector("pixel_distance").check_model(nn.Conv2d(1, 2, 3))


def test_alarms_are_counted_by_what_is_judged() -> None:
    suspicious, clients = torch.tensor([True, True, False, False, True]), torch.tensor([4, 4, 7, 7, 9])
    assert count_alarms(suspicious, "per_sample", clients) == (3, 5)
    assert count_alarms(suspicious, "per_client", clients) == (2, 3)
    assert count_alarms(torch.ones(5, dtype=torch.bool), "batch_mean") == (1, 1)
    assert count_alarms(torch.zeros(0, dtype=torch.bool), "batch_mean") == (0, 0)
    with pytest.raises(ValueError, match="clients"):
        count_alarms(suspicious, "per_client")
