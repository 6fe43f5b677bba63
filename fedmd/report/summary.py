"""One run as one JSON object: `summary.json`, schema 2, worked out from what the recorder left on disk."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedmd.report.files import Truth, read_metrics
from fedmd.report.recorder import mean_or_none
from fedmd.report.statistics.detection import client_detection, flagged_rates, sample_detection
from fedmd.report.statistics.intervals import difference
from fedmd.report.verdicts import read_verdicts, recorded_baselines
from fedmd.storage import strict
from fedmd.types import Action, Json, Phase

SCHEMA_VERSION = 2  # 1 called the baselines rivals
STAGES = (
    "total", "startup", "attack", "local_training", "screening", "baselines", "correction", "guard", "step",
    "evaluation", "transport",
)  # fmt: skip


def summarise(
    folder: Path,
    *,
    truth: Truth,
    burn_in_accuracy: float | None,
    burn_in_attack_success: float | None = None,
    defense_name: str,
    scores: Json,
    n_clients: int,
    wall_s: Mapping[str, float],
    seed: int,
    config: Json,
    versions: Mapping[str, str],
) -> Json:
    """Schema 2 of the run in `folder`: accuracies and shares in [0, 1], times in seconds, undefined = None.

    Args:
        folder: with the record that a RunRecorder has closed.
        truth: who poisoned, and when.
        burn_in_accuracy: before any online step.
        burn_in_attack_success: likewise, where a backdoor is planted.
        defense_name: the setting defense.name.
        scores: which scores there are, and what they are called; see `fedmd.report.scores`.
        n_clients: all clients, sampled or not.
        wall_s: seconds of stages that no round knows (total, startup); wins over the rounds' sum.
        seed: of the run.
        config: all settings, as a tree.
        versions: of what decides a result.
    """
    metrics = read_metrics(folder)
    summary: Json = strict(  # what is returned is what gets written: no NaN, no infinity
        {
            "schema": SCHEMA_VERSION,
            "seed": seed,
            **accuracy_section(metrics, burn_in_accuracy, attacked=bool(truth.malicious_clients)),
            "attack_success": phase_ends(metrics, "attack_success", burn_in_attack_success),
            "rounds": len(metrics),
            "clients": n_clients,
            "malicious_clients": list(truth.malicious_clients),
            **verdict_sections(folder, truth, defense_name),
            **quarantine_section(folder, metrics, truth, config),
            "scores": scores,
            "wall_s": stage_seconds(metrics, wall_s),
            "bytes_received": sum(row["bytes_received"] for row in metrics),
            "versions": dict(versions),
            "config": config,
        }
    )
    return summary


def accuracy_section(metrics: list[Json], burn_in: float | None, *, attacked: bool) -> Json:
    """{accuracy {...}, accumulation_loss, trigger_drop}, the accuracies at the `phase_ends`.

        accumulation_loss = before_attack - before_trigger,   trigger_drop = before_trigger - after_trigger

    each None when its phase never came, and both when nobody is malicious.
    """
    accuracy = phase_ends(metrics, "accuracy", burn_in)
    before_trigger = accuracy["before_trigger"]
    accumulated = attacked and any(row["phase"] == "accumulative" for row in metrics)
    return {
        "accuracy": accuracy,
        "accumulation_loss": difference(accuracy["before_attack"], before_trigger) if accumulated else None,
        "trigger_drop": difference(before_trigger, accuracy["after_trigger"]) if attacked else None,
    }


def phase_ends(metrics: list[Json], measure: str, burn_in: float | None) -> Json:
    """`measure` at {burn_in, before_attack, before_trigger, after_trigger, final}.

    before_attack is its value after the last clean round, or burn_in; before_trigger that after the last
    accumulative round, or before_attack; after_trigger that after the last trigger round. Where a round was
    not evaluated, the last evaluation before it stands.
    """

    def last_of(phase: Phase) -> int | None:
        return max((i for i, row in enumerate(metrics) if row["phase"] == phase), default=None)

    def value_at(position: int) -> float | None:
        known = [row[measure] for row in metrics[: position + 1] if row[measure] is not None]
        return known[-1] if known else burn_in

    clean, accumulative, trigger = last_of("clean"), last_of("accumulative"), last_of("trigger")
    before_attack = burn_in if clean is None else value_at(clean)
    return {
        "burn_in": burn_in,
        "before_attack": before_attack,
        "before_trigger": before_attack if accumulative is None else value_at(accumulative),
        "after_trigger": None if trigger is None else value_at(trigger),
        "final": value_at(len(metrics) - 1),
    }


def verdict_sections(folder: Path, truth: Truth, defense_name: str) -> Json:
    """{detection, defense} over all samples (or clients' updates) of the run, the poisoned ones told by `truth`.

    detection.sample and .client score the discrepancy, detection.detector what the defence held against its
    threshold; the two are the same unless the defence uses another detector. detection.flagged has the shares of the
    poisoned (tpr) and of the clean (fpr) that the defence corrected or rejected. detection.baselines.NAME scores the
    other detectors, sample by sample.
    """
    baselines = recorded_baselines(folder)
    columns = ["round", "client", "index", "discrepancy", "before", "steps", "action", *baselines]
    verdicts = read_verdicts(folder, columns)
    clients = verdicts["client"].to_numpy(np.int64)
    discrepancy, scores = (verdicts[column].to_numpy(np.float64) for column in ("discrepancy", "before"))
    poisoned = truth.of(verdicts)
    actions = verdicts["action"].cat.codes.to_numpy(np.int64)
    return {
        "detection": {
            "sample": sample_detection(discrepancy, poisoned),
            "client": client_detection(discrepancy, clients, truth.malicious_clients),
            "detector": {
                "sample": sample_detection(scores, poisoned),
                "client": client_detection(scores, clients, truth.malicious_clients),
            },
            "flagged": flagged_rates(actions, scores, poisoned),
            "baselines": {name: sample_detection(verdicts[name].to_numpy(np.float64), poisoned) for name in baselines},
        },
        "defense": {
            "name": defense_name,
            "corrected_share": mean_or_none(actions == Action.CORRECTED),
            "rejected_share": mean_or_none(actions == Action.REJECTED),
            "mean_steps": mean_or_none(verdicts["steps"].to_numpy(np.int64)),
        },
    }


def quarantine_section(folder: Path, metrics: list[Json], truth: Truth, config: Json) -> Json:
    """{quarantine {...}}: whom the evidence (9) accused, rightly or not, where the run weighs any.

    `honest_rounds` counts the judged messages of honest clients, `false_alarms` the times that one of them was put in
    quarantine, `per_1000` the latter in 1,000 of the former, and `stated` what it was to be at most. Of `malicious`
    clients `caught` were put there once they attacked, `rounds_to_detection` after the attack's first round (which is
    number 1), in the mean.
    """
    if config.get("quarantine", {}).get("name") != "evidence":
        return {}
    judged = read_verdicts(folder, ["round", "client"]).drop_duplicates()["client"].to_numpy(np.int64)
    malicious, began = set(truth.malicious_clients), min(truth.poisoned_rounds, default=None)
    accused = [(row["round"], client) for row in metrics for client in row.get("alarms", [])]
    honest_rounds = int(np.sum(~np.isin(judged, truth.malicious_clients)))
    false_alarms = sum(client not in malicious for _, client in accused)
    detected: dict[int, int] = {}
    for round, client in accused:
        if client in malicious and began is not None and round >= began:
            detected.setdefault(client, round - began + 1)
    return {
        "quarantine": {
            "stated": config["quarantine"]["false_alarms"],
            "honest_rounds": honest_rounds,
            "false_alarms": false_alarms,
            "per_1000": 1000 * false_alarms / honest_rounds if honest_rounds else None,
            "malicious": len(malicious),
            "caught": len(detected),
            "rounds_to_detection": mean_or_none(np.array([*detected.values()])),
        }
    }


def stage_seconds(metrics: list[Json], outside: Mapping[str, float]) -> Json:
    """Seconds by stage of STAGES: `outside` the rounds, else summed over them, else None."""
    return {stage: outside.get(stage, sum_or_none(metrics, stage)) for stage in STAGES}


def sum_or_none(metrics: list[Json], stage: str) -> float | None:
    """Seconds that the rounds spent in `stage`; None when no round names it."""
    seconds = [row["wall_s"][stage] for row in metrics if row["wall_s"].get(stage) is not None]
    return sum(seconds) if seconds else None
