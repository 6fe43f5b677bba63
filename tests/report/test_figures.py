"""Figures by what is drawn in them; curves against counting."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from fedmd.report.figures import run as figures
from fedmd.report.figures.curves import (
    Curve,
    mean_precision_recall,
    mean_roc,
    operating_point,
    precision_recall_points,
    roc_points,
)
from fedmd.report.figures.distribution import distribution_figure
from fedmd.report.figures.heatmap import heat_map_figure
from fedmd.report.figures.run import ATTACK_SUCCESS, accuracy_figure, example_images_figure, score_figure, write_figures
from fedmd.report.figures.steering import steering_figure
from fedmd.report.files import Truth
from fedmd.report.scores import Score
from fedmd.report.statistics.detection import sample_detection
from fedmd.report.verdicts import read_verdicts
from fedmd.types import ExampleImages

NAN = float("nan")
HISTORICAL_LOSS = Score("historical_loss", "Historical loss", "nats")
CURRENT_LOSS = Score("current_loss", "Current loss", "nats")
MARGIN = Score("margin", "Closeness of the guesses")
SETTINGS = (HISTORICAL_LOSS, "per_sample")


def examples(n=4, channels=1):
    images = np.random.default_rng(0).integers(0, 256, (n, channels, 12, 12), dtype=np.uint8)
    return ExampleImages(images, images[::-1].copy(), images)


@pytest.fixture
def run(tmp_path, round_report, record):
    phases = ["clean"] * 3 + ["accumulative"] * 2 + ["trigger", "recovery"]
    before = [0.01, 0.02, 0.5, 0.6]
    reports = [round_report(i, phase, before=before) for i, phase in enumerate(phases, start=1)]
    folder = record(tmp_path, *reports)
    Truth((1,), (4, 5, 6)).write(folder)
    return folder


def line(figure, label):
    return next(item for item in figure.axes[0].get_lines() if item.get_label().startswith(label))


@pytest.mark.parametrize("channels", [1, 3])
def test_pngs_of_sane_size(run, channels):
    paths = write_figures(run, examples(channels=channels), *SETTINGS)
    assert [path.name for path in paths] == ["accuracy.png", "discrepancy.png", "example_images.png"]
    for path in paths:
        image = imread(path)
        assert 300 < image.shape[0] < 1500 and 400 < image.shape[1] < 2500
        assert image.std() > 0.01
        assert path.stat().st_size < 300_000


def test_no_example_images_and_no_truth(run):
    (run / "truth.json").unlink()
    assert [path.name for path in write_figures(run, None, *SETTINGS)] == ["accuracy.png", "discrepancy.png"]


def test_medians_of_clean_and_poisoned_samples(run):
    figure = score_figure(read_verdicts(run), Truth((1,), (4, 5, 6)), HISTORICAL_LOSS)
    clean, poisoned = line(figure, "clean"), line(figure, "poisoned")
    # rounds 1-3 and 7: median of all four; rounds 4-6: of client 0's 0.01 and 0.02
    np.testing.assert_allclose(clean.get_ydata(), [0.26] * 3 + [0.015] * 3 + [0.26])
    np.testing.assert_allclose(poisoned.get_ydata(), [NAN] * 3 + [0.55] * 3 + [NAN])
    np.testing.assert_allclose(line(figure, "threshold").get_ydata(), [0.25] * 7)
    assert figure.axes[0].get_yscale() == "log"


def test_axes_name_the_score_that_they_show(run):
    verdicts, truth = read_verdicts(run), Truth((1,), (4, 5, 6))
    over_time = score_figure(verdicts, truth, HISTORICAL_LOSS, "threshold (client mean)")
    assert over_time.axes[0].get_ylabel() == "Historical loss (nats)"
    assert line(over_time, "threshold").get_label() == "threshold (client mean)"
    assert distribution_figure(verdicts, truth, CURRENT_LOSS).axes[-1].get_xlabel() == "Current loss (nats)"
    assert heat_map_figure(verdicts, truth, CURRENT_LOSS).axes[-1].get_ylabel() == "Mean current loss (nats)"
    assert distribution_figure(verdicts, truth, MARGIN).axes[-1].get_xlabel() == "Closeness of the guesses"
    nothing = score_figure(verdicts.iloc[:0], truth, CURRENT_LOSS)
    assert [text.get_text() for text in nothing.axes[0].texts] == ["no current loss measured in this run"]


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        (SETTINGS, "threshold"),
        ((HISTORICAL_LOSS, "per_client"), "threshold (client mean)"),
        ((CURRENT_LOSS, "batch_mean"), "threshold (batch mean)"),
    ],
)
def test_the_setting_of_the_defence_names_the_threshold(run, monkeypatch, settings, threshold):
    asked = []
    monkeypatch.setattr(figures, "score_figure", lambda *arguments: asked.append(arguments) or Figure())
    write_figures(run, None, *settings)
    assert [arguments[2:] for arguments in asked] == [(settings[0], threshold)]


def test_a_narrow_range_stays_linear(tmp_path, round_report, record):
    folder = record(tmp_path, round_report(1, before=[0.1, 0.2], threshold=None))
    figure = score_figure(read_verdicts(folder), Truth((), ()), HISTORICAL_LOSS)
    assert figure.axes[0].get_yscale() == "linear"


def test_rounds_without_an_evaluation_are_left_out(tmp_path, round_report, record):
    rows = [{"round": r, "phase": "clean", "accuracy": a} for r, a in ((1, 0.5), (2, None), (3, 0.75))]
    axis = accuracy_figure(rows).axes[0]
    assert lines_of(axis) == [([1, 3], [50.0, 75.0])]
    hovered = [(line.get_gid(), *line.get_xydata()[0]) for line in axis.get_lines() if line.get_gid()]
    assert hovered == [("hover round 1: 50.0 %", 1, 50), ("hover round 3: 75.0 %", 3, 75)]


def lines_of(axis):
    """What is drawn, without the invisible points to hover over."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines() if not line.get_gid()]


def test_attack_success_is_a_second_line_where_it_was_measured():
    rows = [
        {"round": r, "phase": "clean", "accuracy": a, "attack_success": s}
        for r, a, s in ((1, 0.5, 0.1), (2, None, None), (3, 0.75, 0.25))
    ]
    figure = accuracy_figure(rows)
    assert lines_of(figure.axes[0]) == [([1, 3], [50.0, 75.0]), ([1, 3], [10.0, 25.0])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["accuracy", ATTACK_SUCCESS]


@pytest.mark.parametrize("before", [[], [NAN, NAN], [0.0, 0.0]])
def test_runs_with_nothing_to_see(tmp_path, round_report, record, before):
    write_figures(record(tmp_path, round_report(1, accuracy=None, before=before, threshold=None)), None, *SETTINGS)
    write_figures(record(tmp_path / "no rounds"), None, *SETTINGS)


def test_example_images_must_match():
    with pytest.raises(ValueError, match="example images"):
        example_images_figure(ExampleImages(examples().clean, examples(3).clean, examples().clean))
    with pytest.raises(ValueError, match="example images"):
        example_images_figure(examples(channels=2))
    with pytest.raises(ValueError, match="example images"):
        example_images_figure(examples(0))


NAN = float("nan")


def samples(seed):
    """60 scores with many ties, some unmeasured, and which are poisoned."""
    rng = np.random.default_rng(seed)
    poisoned = rng.random(60) < 0.3
    scores = np.round(rng.normal(size=60) + poisoned, 1)
    scores[rng.random(60) < 0.1] = NAN
    return scores, poisoned


def naive(scores, poisoned):
    """(fpr, tpr, precision) of `score >= t` for every distinct score t, from the highest down, by counting."""
    pairs = [(s, p) for s, p in zip(scores, poisoned, strict=True) if s == s]
    positives = sum(p for _, p in pairs)
    points = []
    for t in sorted({s for s, _ in pairs}, reverse=True):
        hits = sum(1 for s, p in pairs if s >= t and p)
        alarms = sum(1 for s, p in pairs if s >= t and not p)
        points.append((alarms / (len(pairs) - positives), hits / positives, hits / (hits + alarms)))
    return points


@pytest.mark.parametrize("seed", range(5))
def test_roc_against_counting(seed):
    scores, poisoned = samples(seed)
    curve = roc_points(scores, poisoned)
    expected = np.array([(0.0, 0.0, 1.0), *naive(scores, poisoned)])
    for x, y in zip(curve.x, curve.y, strict=True):
        assert np.isclose(expected[:, :2], (x, y)).all(1).any()
    area = np.trapezoid(curve.y, curve.x)
    assert area == pytest.approx(np.trapezoid(expected[:, 1], expected[:, 0]))
    assert area == pytest.approx(sample_detection(scores, poisoned)["auroc"])


@pytest.mark.parametrize("seed", range(5))
def test_precision_recall_against_counting(seed):
    scores, poisoned = samples(seed)
    curve = precision_recall_points(scores, poisoned)
    expected = np.array(naive(scores, poisoned))
    np.testing.assert_allclose(np.column_stack([curve.x, curve.y]), expected[: len(curve.x), 1:])
    assert curve.x[-1] == 1
    area = np.sum(np.diff(curve.x, prepend=0) * curve.y)
    assert area == pytest.approx(sample_detection(scores, poisoned)["average_precision"])


@pytest.mark.parametrize("points", [roc_points, precision_recall_points])
def test_no_curve_without_both_classes(points):
    assert points(np.array([1.0, 2.0]), np.array([True, True])) is None
    assert points(np.array([1.0, NAN]), np.array([False, True])) is None
    assert points(np.array([]), np.array([], bool)) is None


def test_the_operating_point_takes_each_sample_at_its_own_threshold():
    scores = np.array([1.0, 3.0, 3.0, 2.0, NAN, 9.0])
    thresholds = np.array([0.5, 2.0, 4.0, 2.0, 1.0, NAN])
    poisoned = np.array([True, False, False, True, True, True])
    point = operating_point(scores, thresholds, poisoned)
    assert (point.tpr, point.fpr, point.precision) == (0.5, 0.5, 0.5)
    assert operating_point(scores, np.full(6, NAN), poisoned) is None
    assert operating_point(scores, np.full(6, 99.0), poisoned).precision is None


def test_means_over_seeds():
    # the largest TPR with FPR <= x, and the precision at the smallest recall >= x
    first = Curve(np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.0, 0.4, 0.8, 1.0]))
    second = Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    roc = mean_roc([first, second])
    at = dict(zip(np.round(roc.x, 3), roc.y, strict=True))
    assert (at[0.0], at[0.25], at[0.5], at[1.0]) == pytest.approx((0.2, 0.2, 0.4, 1.0))
    steps = mean_precision_recall([Curve(np.array([0.5, 1.0]), np.array([1.0, 0.5]))])
    at = dict(zip(np.round(steps.x, 3), steps.y, strict=True))
    assert (at[0.0], at[0.5], at[0.505], at[1.0]) == pytest.approx((1.0, 1.0, 0.5, 0.5))


def test_the_steering_figure_has_a_line_a_seed_and_the_similarity_below():
    def metrics(seed):
        for i, phase in enumerate(["clean", "accumulative", "accumulative", "trigger"]):
            accuracy = None if i == 1 else 0.9 - seed / 10
            yield {"round": i, "phase": phase, "accuracy": accuracy, "attack": {"similarity": -i / 4}}

    quiet = [{"round": 0, "phase": "clean", "accuracy": 0.5}]
    upper, lower = steering_figure({"FedAvg": [list(metrics(0)), list(metrics(1))], "screening": [quiet]}).axes
    above, below = ([item for item in axis.get_lines() if len(item.get_xdata())] for axis in (upper, lower))
    assert [list(item.get_xdata()) for item in above] == [[0, 2, 3], [0, 2, 3], [0]]
    assert list(above[1].get_ydata()) == pytest.approx([80.0] * 3)
    assert [list(item.get_ydata()) for item in below] == [[0, -0.25, -0.5, -0.75]] * 2
