"""Baselines against scikit-learn, SciPy, hand-computed numbers and loops that leave samples out one by one."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from sklearn.covariance import ledoit_wolf
from sklearn.neighbors import KernelDensity, NearestNeighbors
from torch import Tensor

from fedmd.defense.samples.outputs import ModelOutputs, TrustedSamples
from fedmd.registry import DETECTORS

N, M, D, CLASSES = 30, 60, 6, 4
FEATURE_DETECTORS = ["kernel_density", "lid", "mahalanobis"]
BASELINES = ["pixel_distance", *FEATURE_DETECTORS]


def score(name: str, outputs: ModelOutputs, **settings: object) -> Tensor:
    """The scores of the detector called `name`."""
    plugin = DETECTORS.resolve(name)
    scores: Tensor = plugin(plugin.Params.model_validate(settings))(outputs)  # type: ignore[operator]
    return scores


def data(seed: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images [n, 1, 3, 2], labels [n] with every class in them, features [n, D]."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    features = torch.randn(n, D, generator=rng) * torch.arange(1, D + 1) + labels[:, None]
    return torch.rand(n, 1, 3, 2, generator=rng), labels, features


def outputs(
    features: Tensor,
    labels: Tensor,
    reference: tuple[Tensor, Tensor, Tensor],
    x: Tensor | None = None,
    are_trusted: bool = False,
) -> ModelOutputs:
    x_ref, y_ref, f_ref = reference
    logits = torch.zeros(len(labels), CLASSES)
    images = torch.zeros(len(labels), *x_ref.shape[1:]) if x is None else x
    return ModelOutputs(
        logits, logits, labels, images, features, lambda: TrustedSamples(x_ref, y_ref, f_ref), are_trusted
    )


def fresh() -> tuple[ModelOutputs, tuple[Tensor, Tensor, Tensor]]:
    reference = data(1, M)
    x, labels, features = data(2, N)
    return outputs(features, labels, reference, x), reference


def trusted() -> tuple[ModelOutputs, tuple[Tensor, Tensor, Tensor]]:
    reference = x, labels, features = data(1, M)
    return outputs(features, labels, reference, x, are_trusted=True), reference


def class_of(reference: tuple[Tensor, Tensor, Tensor], label: int, without: int | None = None) -> list[int]:
    return [i for i, y in enumerate(reference[1].tolist()) if y == label and i != without]


CASES = pytest.mark.parametrize("case", [fresh, trusted])
Case = Callable[[], tuple[ModelOutputs, tuple[Tensor, Tensor, Tensor]]]


@CASES
def test_pixel_distance_is_a_loop_over_class_means(case: Case) -> None:
    given_outputs, reference = case()
    images = reference[0].flatten(1).double().numpy()
    expected = []
    for i, label in enumerate(given_outputs.labels.tolist()):
        mean = images[class_of(reference, label, i if given_outputs.are_trusted else None)].mean(axis=0)
        assert given_outputs.x is not None
        expected.append(math.sqrt(((given_outputs.x[i].flatten().double().numpy() - mean) ** 2).sum()))
    assert score("pixel_distance", given_outputs).tolist() == pytest.approx(expected, rel=1e-5)


@CASES
def test_kernel_density_is_scikit_learns_without_its_constant(case: Case) -> None:
    given_outputs, reference = case()
    features, labels = reference[2].double().numpy(), reference[1].numpy()
    within = np.mean([features[labels == k].var(axis=0) for k in range(CLASSES)])  # classes are of equal size
    h = math.sqrt(within) * (M / CLASSES) ** (-1 / (D + 4))
    constant = D / 2 * math.log(2 * math.pi * h**2)
    expected = []
    assert given_outputs.features is not None
    for i, label in enumerate(given_outputs.labels.tolist()):
        peers = features[class_of(reference, label, i if given_outputs.are_trusted else None)]
        density = KernelDensity(bandwidth=h).fit(peers)
        expected.append(-density.score_samples(given_outputs.features[i : i + 1].double().numpy())[0] - constant)
    assert score("kernel_density", given_outputs).tolist() == pytest.approx(expected, rel=1e-4)


@CASES
def test_lid_is_the_formula_on_scikit_learns_neighbours(case: Case) -> None:
    given_outputs, reference = case()
    assert given_outputs.features is not None
    trusted = reference[2].double().numpy()
    distances, _ = NearestNeighbors(n_neighbors=21).fit(trusted).kneighbors(given_outputs.features.double().numpy())
    nearest = distances[:, 1:] if given_outputs.are_trusted else distances[:, :20]  # a trusted sample's first is itself
    expected = [-1 / np.mean([math.log(r / row[-1]) for r in row]) for row in nearest]
    assert score("lid", given_outputs).tolist() == pytest.approx(expected, rel=1e-4)


def test_lid_by_hand() -> None:
    """Neighbours at 1, 2 and 4: logarithms -2 ln 2, -ln 2 and 0, hence 3 / (3 ln 2)."""
    reference = torch.zeros(3, 1, 1, 1), torch.tensor([0, 1, 2]), torch.tensor([[1.0], [-2.0], [4.0]])
    scores = score("lid", outputs(torch.tensor([[0.0]]), torch.tensor([3]), reference))
    assert scores.tolist() == pytest.approx([1 / math.log(2)])


@CASES
def test_mahalanobis_is_scipys_with_a_refit_for_every_trusted_sample(case: Case) -> None:
    given_outputs, reference = case()
    features, labels = reference[2].double().numpy(), reference[1].numpy()
    residuals = features - np.stack([features[labels == k].mean(axis=0) for k in labels])
    covariance, shrinkage = ledoit_wolf(residuals, assume_centered=True)
    target = shrinkage * np.trace(residuals.T @ residuals / M) / D * np.eye(D)
    assert np.allclose(covariance, (1 - shrinkage) * residuals.T @ residuals / M + target)
    expected = []
    assert given_outputs.features is not None
    for i, label in enumerate(given_outputs.labels.tolist()):
        kept = np.array([j for j in range(M) if not (given_outputs.are_trusted and j == i)])
        means = {k: features[kept][labels[kept] == k].mean(axis=0) for k in range(CLASSES)}
        scatter = sum(np.outer(features[j] - means[labels[j]], features[j] - means[labels[j]]) for j in kept)
        precision = np.linalg.inv((1 - shrinkage) * scatter / M + target)
        expected.append(scipy_mahalanobis(given_outputs.features[i].double().numpy(), means[label], precision))
    assert score("mahalanobis", given_outputs).tolist() == pytest.approx(expected, rel=1e-4)


def test_confidence_is_one_minus_the_largest_probability() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
    given_outputs = ModelOutputs(torch.zeros(2, 2), logits, torch.tensor([0, 1]))
    assert score("confidence", given_outputs).tolist() == pytest.approx([0.25, 0.5])


def test_a_class_without_trusted_samples_is_judged_by_all_of_them() -> None:
    reference = x_ref, _, f_ref = data(1, M)
    x, _, features = data(2, 3)
    unknown = outputs(features, torch.full((3,), 9), reference, x)
    one_class = x_ref, torch.zeros(M, dtype=torch.int64), f_ref
    known = outputs(features, torch.zeros(3, dtype=torch.int64), one_class, x)
    assert torch.allclose(score("pixel_distance", unknown), score("pixel_distance", known))
    for name in BASELINES:
        assert score(name, unknown).isfinite().all(), name


def test_an_only_trusted_sample_of_its_class_is_judged_by_the_others() -> None:
    x, labels, features = data(1, M)
    labels[7] = 9
    given_outputs = outputs(features, labels, (x, labels, features), x, are_trusted=True)
    mean = x[[i for i in range(M) if i != 7]].mean(dim=0)
    assert float(score("pixel_distance", given_outputs)[7]) == pytest.approx(float((x[7] - mean).norm()), rel=1e-5)
    for name in BASELINES:
        assert score(name, given_outputs).isfinite().all(), name


@pytest.mark.parametrize("name", BASELINES)
def test_a_trusted_sample_scores_like_a_fresh_one(name: str) -> None:
    """Or a threshold of trusted scores would be too low: 300 trusted and 300 fresh samples of one distribution."""
    reference = x, labels, features = data(3, 300)
    ours = score(name, outputs(features, labels, reference, x, are_trusted=True))
    x_new, y_new, f_new = data(4, 300)
    theirs = score(name, outputs(f_new, y_new, reference, x_new))
    below = (ours[:, None] < theirs).double().mean()
    assert float(below) == pytest.approx(0.5, abs=0.08)  # sd of the Mann-Whitney statistic 0.024


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("value", [0.0, 1e-30, math.nan, math.inf])
def test_collapsed_and_diverged_features_are_survived(name: str, value: float) -> None:
    x, labels, _ = data(1, M)
    features = torch.full((M, D), value)
    for mine in (True, False):
        scores = score(name, outputs(features, labels, (x, labels, features), x, are_trusted=mine))
        assert scores.shape == (M,)
        assert scores.isfinite().all() or (name != "pixel_distance" and not math.isfinite(value))


@pytest.mark.parametrize("name", BASELINES)
def test_an_empty_batch_and_one_trusted_sample(name: str) -> None:
    x, labels, features = data(1, M)
    empty = outputs(features[:0], labels[:0], (x, labels, features), x[:0])
    assert score(name, empty).shape == (0,)
    one = x[:1], labels[:1], features[:1]
    assert score(name, outputs(features[:1], labels[:1], one, x[:1], are_trusted=True)).shape == (1,)


@pytest.mark.parametrize("name", FEATURE_DETECTORS)
def test_without_features_nothing_is_measured(name: str) -> None:
    given_outputs = ModelOutputs(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    assert score(name, given_outputs).isnan().all()


def test_a_trusted_set_that_is_missing_is_said() -> None:
    given_outputs = ModelOutputs(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.zeros(3, 1, 2, 2))
    with pytest.raises(ValueError, match="trusted"):
        score("pixel_distance", given_outputs)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.permutations(range(12)))
def test_the_order_of_samples_does_not_matter(seed: int, order: list[int]) -> None:
    x, labels, features = data(seed, 12)
    reference = data(seed + 1, 20)
    moved = [x[order], labels[order], features[order]]
    for name in BASELINES:
        scores = score(name, outputs(features, labels, reference, x))
        again = score(name, outputs(moved[2], moved[1], reference, moved[0]))
        assert torch.allclose(scores[order], again, rtol=1e-4)
        assert bool((scores >= 0).all())
