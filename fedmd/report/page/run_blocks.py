"""The figures of a single run, each with its caption and with words for those who do not see it."""

import numpy as np

from fedmd.report.arms import styles_of
from fedmd.report.curves import (
    operating_point,
    precision_recall_figure,
    precision_recall_points,
    roc_figure,
    roc_points,
)
from fedmd.report.detection import sample_detection
from fedmd.report.distribution import distribution_figure
from fedmd.report.figures import accuracy_figure, discrepancy_figure
from fedmd.report.heatmap import client_means, heat_map_figure
from fedmd.report.page.content import Block, Note, Plot
from fedmd.report.page.evidence import Run
from fedmd.report.page.svg import inline_svg

NO_DISCREPANCY = "This run measured no discrepancy."
NO_ATTACK = "No poisoned sample was measured, so there is nothing to detect: no ROC and no precision-recall curve."


def accuracy_plot(run: Run, slug: str) -> Plot:
    """Accuracy over rounds, phases shaded."""
    known = [(row["round"], 100 * row["accuracy"]) for row in run.metrics if row["accuracy"] is not None]
    words = "No round was evaluated."
    if known:
        low = min(known, key=lambda item: item[1])
        words = (
            f"Test accuracy from {known[0][1]:.1f} % in round {known[0][0]} to {known[-1][1]:.1f} % in round "
            f"{known[-1][0]}; lowest {low[1]:.1f} % in round {low[0]}."
        )
    svg = inline_svg(accuracy_figure(run.metrics), slug, f"Line chart. {words}", 3.2)
    return Plot("Accuracy over rounds", svg, f"{words} The shades are the phases of the stream; rounds count from 0.")


def discrepancy_blocks(run: Run, slug: str) -> list[Block]:
    """Discrepancy over time, its distribution by phase, and the clients' heat map."""
    verdicts = run.verdicts
    if not np.isfinite(verdicts["before"].to_numpy(np.float64)).any():
        return [Note(NO_DISCREPANCY)]
    over_time = inline_svg(
        discrepancy_figure(verdicts, run.truth), f"{slug}-time", f"Line chart over rounds. {groups(run)}", 3.5
    )
    by_phase = inline_svg(
        distribution_figure(verdicts, run.truth), f"{slug}-phases", f"Histograms, one a phase. {groups(run)}"
    )
    means = client_means(verdicts)
    height = float(np.clip(1.5 + 0.16 * len(means), 2.8, 6.5))
    words = f"Heat map, clients by rounds. {clients_words(run)}"
    clients = inline_svg(heat_map_figure(verdicts, run.truth), f"{slug}-clients", words, height)
    return [
        Plot("Discrepancy over time", over_time, f"{groups(run)} Lines are medians, bands 10–90 % of the samples."),
        Plot("Clients by rounds", clients, f"Mean discrepancy of what a client sent in a round. {clients_words(run)}"),
        Plot(
            "Discrepancy by phase",
            by_phase,
            "Share of the clean and of the poisoned samples of a phase in each bin. Dashed: median of the thresholds "
            "in force, the shade around it their range.",
        ),
    ]


def groups(run: Run) -> str:
    """Medians of clean and poisoned samples, and the range of the thresholds, in words."""
    verdicts = run.verdicts[np.isfinite(run.verdicts["before"])]
    poisoned = run.truth.mask(verdicts["round"].to_numpy(np.int64), verdicts["client"].to_numpy(np.int64))
    parts = [f"Median discrepancy of clean samples {verdicts['before'][~poisoned].median():.3g} nats"]
    if poisoned.any():
        parts.append(f"of poisoned ones {verdicts['before'][poisoned].median():.3g}")
    thresholds = verdicts["threshold"].dropna()
    if len(thresholds):
        parts.append("threshold " + " to ".join(dict.fromkeys(f"{end(thresholds):.3g}" for end in (min, max))))
    return ", ".join(parts) + "."


def clients_words(run: Run) -> str:
    """Who is malicious, and the mean discrepancy of both kinds of client."""
    malicious = run.truth.malicious_clients
    if not malicious:
        return "No client is malicious."
    means = client_means(run.verdicts).mean(axis=1)
    bad = means[means.index.isin(malicious)].mean()
    good = means[~means.index.isin(malicious)].mean()
    names = ", ".join(map(str, malicious)) if len(malicious) <= 12 else f"{len(malicious)} of {len(means)}"
    return (
        f"Malicious (▲): {names}, mean {bad:.3g} nats over the run; honest clients {good:.3g}. Dashed boxes are the "
        "rounds in which malicious clients poison."
    )


def detection_blocks(run: Run, slug: str) -> list[Block]:
    """ROC and precision-recall curve with the operating point of the thresholds in force."""
    verdicts = run.verdicts
    scores = verdicts["before"].to_numpy(np.float64)
    poisoned = run.truth.mask(verdicts["round"].to_numpy(np.int64), verdicts["client"].to_numpy(np.int64))
    roc, precision_recall = roc_points(scores, poisoned), precision_recall_points(scores, poisoned)
    if roc is None or precision_recall is None:
        return [Note(NO_ATTACK)]
    quality = sample_detection(scores, poisoned)
    point = operating_point(scores, verdicts["threshold"].to_numpy(np.float64), poisoned)
    counts = f"{quality['n_poisoned']} poisoned and {quality['n_clean']} clean samples"
    area = f"Area under the curve {quality['auroc']:.3f}; {counts}."
    at = ""
    if point:
        shares = f"{100 * point.tpr:.0f} % of the poisoned, {100 * point.fpr:.1f} % of the clean"
        at = f" Above the threshold in force: {shares}."
    average = f"Average precision {quality['average_precision']:.3f}; {counts}."
    share = quality["n_poisoned"] / (quality["n_poisoned"] + quality["n_clean"])
    styles = styles_of(["discrepancy"])
    left = roc_figure({"discrepancy": roc}, styles, point)
    right = precision_recall_figure({"discrepancy": precision_recall}, styles, share, point)
    return [
        Plot("ROC curve", inline_svg(left, f"{slug}-roc", f"ROC curve. {area}{at}"), area + at),
        Plot("Precision-recall curve", inline_svg(right, f"{slug}-pr", f"Precision-recall curve. {average}"), average),
    ]
