"""The figures of a single run, each with its caption and with words for those who do not see it."""

from collections.abc import Mapping

import numpy as np

from fedmd.report.figures.curves import (
    operating_point,
    precision_recall_figure,
    precision_recall_points,
    roc_figure,
    roc_points,
)
from fedmd.report.figures.distribution import distribution_figure
from fedmd.report.figures.heatmap import client_means, heat_map_figure
from fedmd.report.figures.run import accuracy_figure, score_figure
from fedmd.report.figures.style import styles_of
from fedmd.report.html.content import Block, Note, Plot
from fedmd.report.html.svg import inline_svg
from fedmd.report.results import Run
from fedmd.report.scores import DISCREPANCY, Score, held_scores, scores_of, threshold_label, threshold_note
from fedmd.report.statistics.detection import sample_detection
from fedmd.types import Json

CURVE_HEIGHT = 4.5  # inches: the axes are square, the legend is below them
NO_ATTACK = "No poisoned sample was measured, so there is nothing to detect: no ROC and no precision-recall curve."


def accuracy_plot(run: Run, slug: str) -> Plot:
    """Accuracy over rounds, phases shaded, and attack success where there is a backdoor."""
    known = [(row["round"], 100 * row["accuracy"]) for row in run.metrics if row["accuracy"] is not None]
    words = "No round was evaluated."
    if known:
        low = min(known, key=lambda item: item[1])
        words = (
            f"Test accuracy from {known[0][1]:.1f} % in round {known[0][0]} to {known[-1][1]:.1f} % in round "
            f"{known[-1][0]}; lowest {low[1]:.1f} % in round {low[0]}."
        )
    success = [100 * rate for row in run.metrics if (rate := row.get("attack_success")) is not None]
    if success:
        words += f" Attack success from {success[0]:.1f} % to {success[-1]:.1f} %, at most {max(success):.1f} %."
    svg = inline_svg(accuracy_figure(run.metrics), slug, f"Line chart. {words}", 3.2)
    return Plot("Accuracy over rounds", svg, f"{words} The shades are the phases of the stream; rounds count from 0.")


def score_blocks(run: Run, slug: str) -> list[Block]:
    """The detector's score over time, its distribution by phase, and the clients' heat map."""
    verdicts, name, note = run.verdicts, run.detector, threshold_note(run.stopping)
    if not np.isfinite(verdicts["before"].to_numpy(np.float64)).any():
        return [Note(f"This run measured no {name.lower()}.")]
    words = groups(run) + note
    line_chart = score_figure(verdicts, run.truth, run.score, threshold_label(run.stopping))
    over_time = inline_svg(line_chart, f"{slug}-time", f"Line chart over rounds. {words}", 3.5)
    histograms = distribution_figure(verdicts, run.truth, run.score)
    by_phase = inline_svg(histograms, f"{slug}-phases", f"Histograms, one a phase. {words}")
    means = client_means(verdicts)
    height = float(np.clip(1.5 + 0.16 * len(means), 2.8, 6.5))
    mean = f"Mean {name.lower()} of what a client sent in a round. {clients_words(run)}{note}"
    heat_map = heat_map_figure(verdicts, run.truth, run.score)
    clients = inline_svg(heat_map, f"{slug}-clients", f"Heat map, clients by rounds. {mean}", height)
    of_whom = "the clean and of the poisoned samples" if run.truth.malicious_clients else "the samples"
    return [
        Plot(f"{name} over time", over_time, f"{words} Lines are medians, bands 10–90 % of the samples."),
        Plot("Clients by rounds", clients, mean),
        Plot(
            f"{name} by phase",
            by_phase,
            f"Share of {of_whom} of a phase in each bin. Dashed: median of the thresholds in force, the shade around "
            f"it their range.{note}",
        ),
    ]


def groups(run: Run) -> str:
    """Medians of clean and poisoned samples, and the range of the thresholds, in words."""
    verdicts = run.verdicts[np.isfinite(run.verdicts["before"])]
    poisoned = run.truth.of(verdicts)
    clean = run.score.amount(verdicts["before"][~poisoned].median())
    whose = "clean samples" if run.truth.malicious_clients else "the samples"
    parts = [f"Median {run.detector.lower()} of {whose} {clean}"]
    if poisoned.any():
        parts.append(f"of poisoned ones {verdicts['before'][poisoned].median():.3g}")
    thresholds = verdicts["threshold"].dropna()
    if len(thresholds):
        parts.append("threshold " + " to ".join(dict.fromkeys(f"{end(thresholds):.3g}" for end in (min, max))))
    return ", ".join(parts) + "."


def clients_words(run: Run) -> str:
    """Who is malicious, and the mean score of both kinds of client."""
    malicious = run.truth.malicious_clients
    if not malicious:
        over = "malicious_clients" in run.summary
        return "No client is malicious." if over else "Who is malicious is told when a simulation has ended."
    means = client_means(run.verdicts).mean(axis=1)
    bad = means[means.index.isin(malicious)].mean()
    good = means[~means.index.isin(malicious)].mean()
    names = ", ".join(map(str, malicious)) if len(malicious) <= 12 else f"{len(malicious)} of {len(means)}"
    return (
        f"Malicious (▲): {names}, mean {run.score.amount(bad)} over the run; honest clients {good:.3g}. Dashed "
        "boxes are the rounds in which malicious clients poison."
    )


def detection_blocks(run: Run, slug: str) -> list[Block]:
    """ROC and precision-recall curves with the operating point of the thresholds in force.

    One curve of the detector's score and, where that is another score, one of the discrepancy.
    """
    verdicts = run.verdicts
    poisoned = run.truth.of(verdicts)
    scores = {run.detector: verdicts["before"].to_numpy(np.float64)}
    if run.score.name != DISCREPANCY:
        label = Score.of(DISCREPANCY, scores_of(run.summary)["detectors"]).label
        scores[label] = verdicts["discrepancy"].to_numpy(np.float64)
    roc = {name: curve for name, values in scores.items() if (curve := roc_points(values, poisoned))}
    if run.detector not in roc:
        return [Note(NO_ATTACK)]
    precision_recall = {
        name: curve for name, values in scores.items() if (curve := precision_recall_points(values, poisoned))
    }
    quality = {name: sample_detection(scores[name], poisoned) for name in roc}
    n_poisoned, n_clean = quality[run.detector]["n_poisoned"], quality[run.detector]["n_clean"]
    counts = f"{n_poisoned} poisoned and {n_clean} clean samples."
    thresholds = verdicts["threshold"].to_numpy(np.float64)
    point = operating_point(held_scores(verdicts, run.stopping), thresholds, poisoned)
    at = ""
    if point:
        shares = f"{100 * point.tpr:.0f} % of the poisoned, {100 * point.fpr:.1f} % of the clean"
        at = f" Above the threshold in force: {shares}.{threshold_note(run.stopping)}"
    area = f"Area under the curve: {measured(quality, 'auroc')}; {counts}{at}"
    average = f"Average precision: {measured(quality, 'average_precision')}; {counts}"
    styles = styles_of(scores)
    left = roc_figure(roc, styles, point)
    right = precision_recall_figure(precision_recall, styles, n_poisoned / (n_poisoned + n_clean), point)
    alt = f"Precision-recall curve. {average}"
    return [
        Plot("ROC curve", inline_svg(left, f"{slug}-roc", f"ROC curve. {area}", CURVE_HEIGHT), area),
        Plot("Precision-recall curve", inline_svg(right, f"{slug}-pr", alt, CURVE_HEIGHT), average),
    ]


def measured(quality: Mapping[str, Json], key: str) -> str:
    """`historical loss 0.912, memorization discrepancy 0.534`."""
    return ", ".join(f"{name.lower()} {values[key]:.3f}" for name, values in quality.items())
