"""The pipeline: what comes out of it to be learned from, and the verdicts that go with it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmd.config import DefenseConfig
from fedmd.defense.base import Defense
from fedmd.defense.history import Ema, Lag, Snapshot
from fedmd.defense.samples.detectors.base import Score
from fedmd.defense.samples.drift import DriftMonitor
from fedmd.defense.samples.outputs import TrustedSamples, compute_outputs
from fedmd.defense.samples.pipeline import Pipeline
from fedmd.defense.samples.thresholds import Quantile
from fedmd.registry import DETECTORS as REGISTERED
from fedmd.types import Action, Screened

N = 24
OWN = [each for each in REGISTERED.own() if each.name != "combined"]
DETECTORS: dict[str, Score] = {each.name: each(each.Params()) for each in OWN}  # type: ignore[misc]


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(N, 1, 8, 8, generator=rng), torch.randint(0, 5, (N,), generator=rng)


def naive_discrepancy(historical: nn.Module, current: nn.Module, x: Tensor) -> Tensor:
    """KL(historical || current), sample by sample, in float64."""
    rows = []
    for one in x:
        with torch.no_grad():
            logits = (m.eval()(one[None]).double()[0] for m in (historical, current))
            p, q = (row.softmax(0) for row in logits)
        rows.append(sum(p[k] * (p[k].log() - q[k].log()) for k in range(len(p))))
    return torch.stack(rows)


def defense(name: str) -> Defense:
    return DefenseConfig.model_validate({"name": name}).make()  # type: ignore[no-any-return]


def pipeline(name: str, threshold: float | Callable[..., float], **settings: object) -> Pipeline:
    as_published = {"stopping": "per_sample", **({"beyond_mending": "keep"} if name == "dsc" else {})}
    config = DefenseConfig.model_validate({"name": name, **as_published, **settings})
    rule = threshold if callable(threshold) else lambda step, trusted: threshold
    return Pipeline(
        net(0),
        Snapshot(net(7).state_dict()),
        rule,
        config.make(),
        trusted=(torch.rand(9, 1, 8, 8), torch.arange(9) % 5),
        detector=config.make_slot("detector"),
        stopping=config.stopping,
    )


def screen(
    name: str, x: Tensor, y: Tensor, threshold: float | None = None, **settings: object
) -> tuple[Screened, Tensor]:
    """Screened at the median discrepancy unless told, and the naive discrepancy of the batch."""
    before = naive_discrepancy(net(7), net(0), x)
    limit = float(before.sort().values[N // 2 - 1 : N // 2 + 1].mean()) if threshold is None else threshold
    return pipeline(name, limit, **settings).screen(x, y), before


def check_verdicts(screened: Screened, before: Tensor) -> None:
    verdicts = screened.verdicts
    assert {len(a) for a in (verdicts.before, verdicts.after, verdicts.steps, verdicts.actions)} == {len(before)}
    assert np.allclose(verdicts.before, before.numpy(), rtol=1e-4, atol=1e-6)
    assert verdicts.before.dtype == verdicts.after.dtype == np.float64
    assert verdicts.steps.dtype == verdicts.actions.dtype == np.int64


def test_none_learns_from_everything_bit_for_bit(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    screened, before = screen("none", x.clone(), y)
    check_verdicts(screened, before)
    assert torch.equal(screened.x, x) and torch.equal(screened.y, y)
    assert set(screened.verdicts.actions) == {Action.ACCEPTED}
    assert np.array_equal(screened.verdicts.after, screened.verdicts.before)
    assert not screened.verdicts.steps.any()


def test_frozen_learns_from_nothing(batch: tuple[Tensor, Tensor]) -> None:
    screened, before = screen("frozen", *batch)
    check_verdicts(screened, before)
    assert screened.x.shape == (0, 1, 8, 8) and screened.y.shape == (0,)
    assert set(screened.verdicts.actions) == {Action.REJECTED}


def test_drop_removes_exactly_what_is_above(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    screened, before = screen("drop", x.clone(), y)
    limit = screened.verdicts.threshold
    assert limit is not None
    keep = [i for i in range(N) if before[i] <= limit]
    assert len(keep) == N // 2
    check_verdicts(screened, before)
    assert torch.equal(screened.x, torch.stack([x[i] for i in keep]))
    assert screened.y.tolist() == [int(y[i]) for i in keep]
    assert [i for i, action in enumerate(screened.verdicts.actions) if action == Action.ACCEPTED] == keep
    assert screened.verdicts.share(Action.REJECTED) == 0.5


def test_drop_keeps_a_sample_at_the_threshold(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    exact = pipeline("none", 0.0).screen(x, y).verdicts.before  # to the last bit
    screened = pipeline("drop", float(exact[3])).screen(x, y)
    assert screened.verdicts.actions[3] == Action.ACCEPTED
    assert (screened.verdicts.actions == Action.REJECTED).tolist() == (exact > exact[3]).tolist()


def test_dsc_touches_only_what_is_above_and_pulls_it_down(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    screened, before = screen("dsc", x.clone(), y, step_size=0.02, radius=0.2, max_steps=10)
    verdicts = screened.verdicts
    assert verdicts.threshold is not None
    above = before.numpy() > verdicts.threshold
    check_verdicts(screened, before)
    assert (verdicts.actions == Action.CORRECTED).tolist() == above.tolist() == (verdicts.steps > 0).tolist()
    untouched = torch.from_numpy(~above)
    assert torch.equal(screened.x[untouched], x[untouched])
    moved = (screened.x - x).abs().flatten(1).amax(1)
    assert bool((moved[~untouched] > 0).all()) and float(moved.max()) <= 0.2 + 1e-6
    assert torch.equal(screened.y, y)
    after = naive_discrepancy(net(7), net(0), screened.x)
    assert np.allclose(verdicts.after, after.numpy(), rtol=1e-3, atol=1e-5)
    stopped = above & (verdicts.steps < 10)
    assert stopped.any() and (verdicts.after[stopped] <= verdicts.threshold).all()


def test_at_moves_every_sample_and_measures_nothing_afterwards(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    screened, before = screen("at", x.clone(), y, max_steps=3, radius=0.2, step_size=0.02)
    check_verdicts(screened, before)
    assert set(screened.verdicts.actions) == {Action.CORRECTED} and set(screened.verdicts.steps) == {3}
    assert np.isnan(screened.verdicts.after).all()
    moved = (screened.x - x).abs().flatten(1).amax(1)
    assert bool((moved > 0).all()) and float(moved.max()) <= 0.06 + 1e-6
    current = net(0).eval()
    assert cross_entropy(current(screened.x), y) < cross_entropy(current(x), y)


@pytest.mark.parametrize("name", ["none", "drop", "dsc", "at", "frozen"])
def test_an_infinite_threshold_is_none_and_touches_nothing(batch: tuple[Tensor, Tensor], name: str) -> None:
    screened, _ = screen(name, *batch, threshold=math.inf)
    assert screened.verdicts.threshold is None
    if name in ("drop", "dsc"):
        assert torch.equal(screened.x, batch[0]) and set(screened.verdicts.actions) == {Action.ACCEPTED}


def test_per_client_judges_a_message_as_a_whole(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    clients = torch.tensor([5, 9, 2] * 8)  # interleaved: senders need not come in a row
    before = naive_discrepancy(net(7), net(0), x).tolist()
    mean = {who: np.mean([d for d, c in zip(before, clients.tolist(), strict=True) if c == who]) for who in (5, 9, 2)}
    limit = float(np.median(list(mean.values()))) + 1e-6
    verdicts = pipeline("drop", limit, stopping="per_client").screen(x, y, clients).verdicts
    expected = [mean[who] > limit for who in clients.tolist()]
    assert sum(expected) == 8
    assert (verdicts.actions == Action.REJECTED).tolist() == expected


@pytest.mark.parametrize(("margin", "rejected"), [(-1e-3, N), (1e-3, 0)])
def test_batch_mean_judges_all_at_once(batch: tuple[Tensor, Tensor], margin: float, rejected: int) -> None:
    mean = float(naive_discrepancy(net(7), net(0), batch[0]).mean())
    verdicts = pipeline("drop", mean + margin, stopping="batch_mean").screen(*batch).verdicts
    assert (verdicts.actions == Action.REJECTED).sum() == rejected


def test_another_detector_is_what_is_held_against_the_threshold(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    probabilities = net(7).eval()(x).softmax(1).detach()
    loss = np.array([-math.log(float(probabilities[i, y[i]])) for i in range(N)])
    limit = float(np.median(loss))
    verdicts = pipeline("drop", limit, detector="historical_loss").screen(x, y).verdicts
    assert np.allclose(verdicts.before, loss, rtol=1e-4)
    assert (verdicts.actions == Action.REJECTED).tolist() == (loss > limit).tolist()


@pytest.mark.parametrize("name", ["none", "drop", "dsc", "at", "frozen"])
def test_screening_leaves_models_as_they_were(batch: tuple[Tensor, Tensor], name: str) -> None:
    guard = pipeline(name, 0.01)
    guard.current.train()
    state = {key: tensor.clone() for key, tensor in guard.current.state_dict().items()}
    guard.screen(*batch)
    assert all(torch.equal(tensor, state[key]) for key, tensor in guard.current.state_dict().items())
    assert guard.current.training and not guard.historical.training
    assert all(parameter.grad is None for parameter in guard.current.parameters())


def test_threshold_is_told_the_step_and_the_trusted_discrepancy(batch: tuple[Tensor, Tensor]) -> None:
    seen: list[tuple[int, Tensor]] = []

    def rule(step: int, trusted: Callable[[], Tensor]) -> float:
        seen.append((step, trusted()))
        return 1.0

    guard = pipeline("none", rule)
    guard.screen(*batch)
    guard.screen(*batch)
    guard.observe()
    guard.screen(*batch)
    assert [step for step, _ in seen] == [0, 0, 1]
    expected = naive_discrepancy(net(7), net(0), guard.trusted[0])
    assert torch.allclose(seen[0][1].double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["none", "drop", "dsc", "at", "frozen"])
def test_an_empty_batch(name: str) -> None:
    screened = pipeline(name, 0.1).screen(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert len(screened.x) == len(screened.y) == len(screened.verdicts.before) == 0


def test_a_plain_pytorch_loop(batch: tuple[Tensor, Tensor]) -> None:
    """No Flower, no Hydra: the history lags one step behind the model that this loop trains by itself."""
    x, y = batch
    model = net(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Pipeline(model, Lag(1), lambda step, trusted: math.inf, defense("drop"), trusted=batch)
    measured = []
    for _ in range(3):
        screened = guard.screen(x, y)
        measured.append(screened.verdicts.before.max())
        model.train()
        optimizer.zero_grad()
        cross_entropy(model(screened.x), screened.y).backward()
        optimizer.step()
        guard.observe()
    assert measured[0] == 0  # the two models are one
    assert all(value > 0 for value in measured[1:])
    assert guard.steps == 3


@pytest.mark.parametrize(("share", "kept"), [(0.0, 24), (0.2, 19), (0.25, 18), (0.5, 12), (1.0, 0)])
def test_trim_leaves_out_the_largest_losses(batch: tuple[Tensor, Tensor], share: float, kept: int) -> None:
    x, y = batch
    logits = net(0).eval()(x).detach().double()
    loss = [-math.log(float(logits[i].softmax(0)[y[i]])) for i in range(N)]
    smallest = sorted(sorted(range(N), key=lambda i: loss[i])[:kept])
    screened = pipeline("trim", 0.0, trim_share=share).screen(x.clone(), y)
    assert [i for i, action in enumerate(screened.verdicts.actions) if action == Action.ACCEPTED] == smallest
    assert torch.equal(screened.x, x[smallest]) and torch.equal(screened.y, y[smallest])
    assert np.allclose(screened.verdicts.before, loss, rtol=1e-4)  # the detector of trim is the current loss


def test_trim_by_another_detector_and_of_samples_without_a_score(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    screened = pipeline("trim", 0.0, trim_share=0.5, detector="discrepancy").screen(x, y)
    before = naive_discrepancy(net(7), net(0), x)
    rejected = screened.verdicts.actions == Action.REJECTED
    assert set(np.flatnonzero(rejected)) == set(before.argsort(descending=True)[: N // 2].tolist())
    x = x.clone()
    x[3] = math.nan
    assert pipeline("trim", 0.0, trim_share=1 / N).screen(x, y).verdicts.actions[3] == Action.REJECTED


@pytest.mark.parametrize("name", ["pixel_distance", "kernel_density", "lid", "mahalanobis", "confidence"])
def test_a_baseline_as_the_detector(batch: tuple[Tensor, Tensor], name: str) -> None:
    """Its threshold comes from trusted scores with each sample left out, and DSC follows it in its own passes."""
    x, y = batch
    seen: list[Tensor] = []

    def rule(step: int, trusted: Callable[[], Tensor]) -> float:
        seen.append(trusted())
        return float(seen[-1].median())

    guard = pipeline("dsc", rule, detector=name, step_size=0.05)
    guard.trusted = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(5)), torch.arange(40) % 5
    verdicts = (screened := guard.screen(x.clone(), y)).verdicts
    first = compute_outputs(net(7), net(0), *guard.trusted)
    assert first.x is not None
    samples = TrustedSamples(first.x, first.labels, first.features)
    fresh = compute_outputs(net(7), net(0), x, y, lambda: samples)
    assert np.allclose(verdicts.before, DETECTORS[name](fresh), rtol=1e-4)
    if name == "pixel_distance":  # a sample that is part of its own mean is nearer to it by (n - 1) / n, n = 8
        assert torch.allclose(
            seen[0] * 7 / 8, DETECTORS[name](compute_outputs(net(7), net(0), *guard.trusted, lambda: samples))
        )
    assert verdicts.threshold is not None
    assert ((verdicts.before > verdicts.threshold) == (verdicts.steps > 0)).all()
    after = DETECTORS[name](compute_outputs(net(7), net(0), screened.x, y, lambda: samples))
    assert np.allclose(verdicts.after, after, rtol=1e-3, atol=1e-4)


def counted(calls: dict[str, int], name: str) -> Callable[[nn.Module, object], None]:
    def count(module: nn.Module, inputs: object) -> None:
        calls[name] = calls.get(name, 0) + 1

    return count


@pytest.mark.parametrize(
    ("rule", "baselines", "passes"),
    [
        (lambda step, trusted: 1.0, {}, {"current": 1, "historical": 1}),
        (lambda step, trusted: 1.0, DETECTORS, {"current": 2, "historical": 1}),
        (lambda step, trusted: float(trusted().median()), {}, {"current": 2, "historical": 2}),
        (lambda step, trusted: float(trusted().median()), DETECTORS, {"current": 2, "historical": 2}),
    ],
)
def test_forward_passes(
    batch: tuple[Tensor, Tensor],
    rule: Callable[..., float],
    baselines: dict[str, Score],
    passes: dict[str, int],
) -> None:
    """The trusted set is asked only where somebody wants it, and once however many detectors do."""
    guard, calls = pipeline("none", rule), dict[str, int]()
    guard.baselines = baselines
    guard.current.register_forward_pre_hook(counted(calls, "current"))
    guard.historical.register_forward_pre_hook(counted(calls, "historical"))
    guard.screen(*batch)
    assert calls == passes


@pytest.mark.parametrize("name", ["none", "drop", "dsc"])
def test_baselines_watch_and_change_nothing(batch: tuple[Tensor, Tensor], name: str) -> None:
    x, y = batch
    alone, watched = (pipeline(name, lambda step, trusted: float(trusted().median())) for _ in range(2))
    watched.baselines = {key: each for key, each in DETECTORS.items() if key != "discrepancy"}
    plain, scored = alone.screen(x.clone(), y), watched.screen(x.clone(), y)
    assert torch.equal(plain.x, scored.x) and plain.verdicts.threshold == scored.verdicts.threshold
    for part in ("before", "after", "steps", "actions"):
        assert np.array_equal(getattr(plain.verdicts, part), getattr(scored.verdicts, part))
    assert plain.verdicts.baselines == {} and set(scored.verdicts.baselines) == set(watched.baselines)
    assert all(scores.shape == (N,) and np.isfinite(scores).all() for scores in scored.verdicts.baselines.values())
    assert set(watched.wall_s) == {"screening", "baselines", "correction"} and "baselines" not in alone.wall_s


@pytest.mark.parametrize("name", ["dsc", "recommended"])
def test_a_batch_without_senders_is_one_message(batch: tuple[Tensor, Tensor], name: str) -> None:
    """Judged as a whole by default; the threshold is that of means over as many trusted samples."""
    x, y = batch
    trusted = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(5)), torch.arange(40) % 5
    guard = Pipeline.from_config(net(0), defense=name, snapshots=[net(7)], trusted=trusted)
    verdicts = guard.screen(x.clone(), y).verdicts
    assert len(set(verdicts.actions.tolist())) == 1
    one = Pipeline.from_config(net(0), defense=name, snapshots=[net(7)], trusted=trusted)
    assert np.array_equal(one.screen(x.clone(), y, torch.full((N,), 3)).verdicts.before, verdicts.before)
    assert set(verdicts.baselines) == {*DETECTORS} - {"discrepancy"}


@pytest.mark.parametrize("stopping", ["per_sample", "per_client"])
def test_what_no_correction_mends_is_rejected(batch: tuple[Tensor, Tensor], stopping: str) -> None:
    """By default; `keep` learns from it, and the samples that are learned from either way are the same."""
    x, y = batch
    senders = torch.arange(N) % 4
    limit = float(naive_discrepancy(net(7), net(0), x).median())
    settings = {"stopping": stopping, "step_size": 0.005, "max_steps": 2}
    kept, rejecting = (
        pipeline("dsc", limit, beyond_mending=what, **settings).screen(x.clone(), y, senders)
        for what in ("keep", "reject")
    )
    after = torch.from_numpy(kept.verdicts.after)
    if stopping == "per_client":
        after = torch.stack([after[senders == sender].mean() for sender in senders])
    above = (after > limit).numpy()
    assert above.any() and not above.all()
    assert np.array_equal(rejecting.verdicts.actions == Action.REJECTED, above)
    assert Action.REJECTED not in kept.verdicts.actions
    assert np.array_equal(kept.verdicts.actions[~above], rejecting.verdicts.actions[~above])
    assert torch.equal(rejecting.x, kept.x[torch.from_numpy(~above)])


def test_the_published_rule_brings_its_threshold_and_its_history(batch: tuple[Tensor, Tensor]) -> None:
    """By name alone: eq (7), the batch's mean and an early snapshot, against the parts put together by hand."""
    x, y = batch
    guard = Pipeline.from_config(net(0), defense="dsc_published", snapshots=[net(7), net(8)], trusted=batch)
    guard.steps = 3
    before = naive_discrepancy(net(7), net(0), x)
    screened = guard.screen(x.clone(), y)
    assert screened.verdicts.threshold == pytest.approx(0.5 + 3 * 0.02)
    assert (screened.verdicts.steps > 0).all() == (before.mean() > 0.56)
    by_hand = Pipeline.from_config(
        net(0),
        defense={"name": "dsc", "stopping": "batch_mean", "beyond_mending": "keep"},
        threshold="published",
        history="snapshot",
        snapshots=[net(7), net(8)],
        trusted=batch,
    )
    by_hand.steps = 3
    assert torch.equal(by_hand.screen(x.clone(), y).x, screened.x)
    others = Pipeline.from_config(net(0), defense="dsc_published", threshold="quantile", history="ema", trusted=batch)
    assert isinstance(others.history, Ema) and isinstance(others.threshold, Quantile)


def test_feature_baselines_of_a_model_without_a_linear_layer_measure_nothing(batch: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 8), nn.Flatten())
    guard = Pipeline(
        model, Snapshot(), lambda step, trusted: 1.0, defense("none"),
        trusted=batch, baselines=DETECTORS,
    )  # fmt: skip
    baselines = guard.screen(*batch).verdicts.baselines
    unmeasured = {name for name, scores in baselines.items() if np.isnan(scores).all()}
    assert unmeasured == {"kernel_density", "lid", "mahalanobis"}
    assert all(np.isfinite(scores).all() for name, scores in baselines.items() if name not in unmeasured)


def test_the_monitor_counts_messages_where_messages_are_judged(batch: tuple[Tensor, Tensor]) -> None:
    seen: list[tuple[int, int, int]] = []

    class Listening(DriftMonitor):
        def observe(self, alarms: int, judged: int, samples: int) -> None:
            seen.append((alarms, judged, samples))

    clients = torch.arange(N) % 3
    for stopping in ("per_sample", "per_client", "batch_mean"):
        guard = pipeline("drop", -1.0, stopping=stopping)
        guard.monitor = Listening(0.1, 9)
        guard.screen(*batch, clients)
        guard.threshold = lambda step, trusted: math.inf  # no promise: nothing to watch
        guard.screen(*batch, clients)
    assert seen == [(N, N, N), (3, 3, N), (1, 1, N)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["none", "drop", "dsc", "at"])
def test_on_cuda(batch: tuple[Tensor, Tensor], name: str) -> None:
    on_cpu, _ = screen(name, *batch)
    guard = pipeline(name, on_cpu.verdicts.threshold or 0.0)
    guard.current.cuda()
    guard.historical.cuda()
    guard.trusted = (guard.trusted[0].cuda(), guard.trusted[1].cuda())
    screened = guard.screen(batch[0].cuda(), batch[1].cuda())
    assert screened.x.is_cuda and screened.y.is_cuda
    assert np.allclose(screened.verdicts.before, on_cpu.verdicts.before, rtol=1e-2, atol=1e-4)
    assert screened.verdicts.actions.tolist() == on_cpu.verdicts.actions.tolist()
