"""The server of mode=stream in the loop: what it says of every sample, what it learns, and when it warns."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmd.types import Action, StreamBatch
from tests.rounds.federation import Federation, same

Build = Callable[..., Federation]
ATTACK = {"name": "accumulative", "fraction": 0.4}


def test_a_report_names_every_sample(federation: Build) -> None:
    run = federation({"defense.name": "drop", "threshold": {"name": "quantile", "fpr": 0.5}})
    results = list(run.rounds())
    for round, result in enumerate(results):
        report, batches = result.report, [batch for batch in run.sent if batch.round == round]
        assert report.clients.tolist() == [batch.client for batch in batches for _ in range(4)]
        assert report.index.tolist() == [0, 1, 2, 3] * len(batches)
        assert np.array_equal(report.labels, np.concatenate([batch.labels for batch in batches]))
        assert len(report.verdicts.before) == 4 * len(batches)
        assert report.bytes_received == 10 * len(batches)
        kept = report.verdicts.actions != Action.REJECTED
        assert result.judged.y.tolist() == report.labels[kept].tolist()
        assert (report.loss is None) == (not kept.any())
    assert any(result.report.verdicts.share(Action.REJECTED) > 0 for result in results)


def test_frozen_learns_nothing(federation: Build) -> None:
    run = federation({"defense.name": "frozen", "model": {"name": "resnet_small", "width": 4}})
    before = run.weights()
    reports = [result.report for result in run.rounds()]
    assert same(before, run.weights())
    assert run.server.version == 0  # thresholds and histories count steps, not rounds
    assert len({report.accuracy for report in reports}) == 1
    assert all(report.loss is None for report in reports)


def test_fraction_zero_is_no_attack_bit_for_bit_and_more_is_not(federation: Build) -> None:
    final, numbers = {}, {}
    for name, attack in {
        "none": {"name": "none"},
        "zero": {**ATTACK, "fraction": 0.0, "stop_error_rise": 0.01},
        "some": ATTACK,
    }.items():
        run = federation({"attack": attack, "defense.name": "dsc"})
        reports = [result.report for result in run.rounds()]
        final[name] = run.weights()
        numbers[name] = [(report.loss, report.accuracy, report.verdicts.before.tolist()) for report in reports]
    assert same(final["none"], final["zero"]) and numbers["none"] == numbers["zero"]
    assert not same(final["none"], final["some"])
    assert numbers["none"][:2] == numbers["some"][:2]  # clean rounds are clean


def test_a_run_survives_a_diverged_model(federation: Build) -> None:
    """A successful attack may leave NaN behind: the remaining rounds are still reported."""
    run = federation({"training.online.lr": 1e30, "defense.name": "dsc", "threshold": {"name": "quantile"}})
    reports = [result.report for result in run.rounds()]
    assert len(reports) == 6
    assert np.isnan(reports[-1].verdicts.before).all()
    assert reports[-1].verdicts.threshold is None


def test_clipping_bounds_the_servers_step(federation: Build) -> None:
    """Without momentum a step is at most lr * clip_norm long, and with a small bound exactly that."""
    run = federation({"defense": {"name": "clip", "clip_norm": 1e-3}, "training.online.momentum": 0.0})
    before = torch.cat([p.detach().flatten().clone() for p in run.server.model.net.parameters()])
    result = next(run.unrecorded())
    after = torch.cat([p.detach().flatten() for p in run.server.model.net.parameters()])
    assert float((after - before).double().norm()) == pytest.approx(0.02 * 1e-3, rel=0.02)  # float32 weights
    assert set(result.report.verdicts.actions) == {Action.ACCEPTED}


def test_every_sample_is_scored_by_every_detector_unless_told(federation: Build) -> None:
    expected = {
        "historical_loss", "current_loss", "confidence", "pixel_distance", "kernel_density", "lid", "mahalanobis",
    }  # fmt: skip
    watched = federation().rounds()
    alone = federation({"defense": {"name": "none", "rivals": False}}).rounds()
    for result, plain in zip(watched, alone, strict=True):
        assert set(result.report.verdicts.baselines) == expected and plain.report.verdicts.baselines == {}
        assert all(len(scores) == 20 for scores in result.report.verdicts.baselines.values())
        assert np.array_equal(result.report.verdicts.before, plain.report.verdicts.before)
        assert (result.report.loss, result.report.accuracy) == (plain.report.loss, plain.report.accuracy)


# -- drift ----------------------------------------------------------------------------------------------------------

DROP = {
    "defense": {"name": "drop", "detector": "pixel_distance"},
    "threshold": {"name": "quantile", "fpr": 0.2},
    "stream.batch_size": 20,
}


def darken(run: Federation) -> Federation:
    """The server's trusted images are no longer like the stream."""
    x, y = run.server.pipeline.trusted
    run.server.pipeline.trusted = (0.2 * x, y)
    return run


def test_drift_is_warned_of_once_and_reported_in_every_round(federation: Build, caplog: Any) -> None:
    drifted = [result.report.verdicts.drift for result in darken(federation(DROP)).rounds()]
    assert all(drift is not None and drift.promised == 0.2 and drift.rate > 0.9 for drift in drifted)
    warnings = [record.getMessage() for record in caplog.records if "threshold drift" in record.getMessage()]
    assert len(warnings) == 1 and "promised 20.0 %" in warnings[0]


def test_no_warning_without_drift(federation: Build, caplog: Any) -> None:
    results = list(federation(DROP).rounds())
    assert 0 < np.mean([result.report.verdicts.share(Action.REJECTED) for result in results]) < 0.5
    assert all(result.report.verdicts.drift is None for result in results) and not caplog.records


def test_no_warning_where_the_threshold_is_not_in_force(federation: Build, caplog: Any) -> None:
    run = darken(federation({**DROP, "defense": {"name": "none", "detector": "pixel_distance"}}))
    assert all(result.report.verdicts.drift is None for result in run.rounds()) and not caplog.records


# -- batch norm, dropout, CUDA --------------------------------------------------------------------------------------


def first_batchnorm(net: nn.Module) -> nn.BatchNorm2d:
    return next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))


def input_of(net: nn.Module, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        net.eval()(x)
    handle.remove()
    return seen[0]


def test_trusted_statistics_are_those_of_the_trusted_set_after_every_step(federation: Build) -> None:
    run = federation({"model": {"name": "resnet_small", "width": 4}, "training.online.batchnorm": "trusted"})
    trusted = run.data.images.take(run.data.split.trusted).tensors()[0]
    net, random = run.server.model.net, np.random.default_rng(0)
    noise = random.integers(0, 256, (20, *run.data.images.images.shape[1:]), dtype=np.uint8)
    for step in range(3):
        layer = first_batchnorm(net)
        assert layer.running_mean is not None and layer.running_var is not None
        activations = input_of(net, layer, trusted)
        assert torch.allclose(layer.running_mean, activations.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(layer.running_var, activations.var((0, 2, 3)), rtol=1e-4, atol=1e-6)
        run.server.learn(run.server.judge([StreamBatch(0, step, noise, np.zeros(20, np.int64))]))


def test_precise_statistics_are_those_of_the_whole_burn_in_part(federation: Build) -> None:
    precise = {"training.burn_in.batchnorm": "precise", "training.burn_in.batch_size": 10_000}
    run = federation({"model": {"name": "resnet_small", "width": 4}, **precise})
    x = run.data.images.take(run.data.split.burn_in).tensors()[0]
    net = run.server.model.net
    layer = first_batchnorm(net)
    assert layer.running_mean is not None
    assert torch.allclose(layer.running_mean, input_of(net, layer, x).mean((0, 2, 3)), atol=1e-5)


def forgetful(*, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    """A net with dropout, for model.factory."""
    size = channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes))


def test_dropout_repeats_whatever_the_global_generator_did(
    federation: Build, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing depends on what ran before in the process, neither in burn-in nor in online learning."""
    module = ModuleType("forgetful_net")
    module.__dict__["forgetful"] = forgetful
    monkeypatch.setitem(sys.modules, "forgetful_net", module)
    custom = {"name": "custom", "factory": "forgetful_net:forgetful"}
    weights = []
    for spoiled in (1, 2):
        torch.manual_seed(spoiled)
        run = federation({"model": custom, "runtime.cache_dir": str(tmp_path / str(spoiled))})
        torch.manual_seed(10 * spoiled)
        list(run.rounds())
        weights.append(run.weights())
    assert same(*weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda(federation: Build, precision: str) -> None:
    settings = {"runtime.device": "cuda", "runtime.precision": precision, "runtime.channels_last": True}
    run = federation({**settings, "attack": ATTACK, "defense.name": "dsc"})
    reports = [result.report for result in run.rounds()]
    assert all(parameter.is_cuda for parameter in run.server.model.net.parameters())
    assert all(report.accuracy is not None for report in reports)
    assert all(np.isfinite(report.verdicts.before).all() for report in reports)
