"""Arms × seeds to evidence: means with t-intervals, and differences paired by seed. Pure; no files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TypeGuard

from fedmd.report.scores import known_detectors
from fedmd.report.statistics.intervals import Values, kept_gain, mean_interval, paired_intervals, subtract
from fedmd.types import Json

SCHEMA_VERSION = 1
NOT_MEASURED = ("schema", "seed", "config", "versions", "malicious_clients", "scores")  # top-level keys without a mean


@dataclass(frozen=True)
class ArmInfo:
    """What an arm is: its name for people, the arm its defence is called after, and whether anybody attacks.

    `attack` is the arm that its attack is called after; arms that agree in it are attacked alike.
    """

    label: str
    defense: str
    attacked: bool
    attack: str = ""


def compare(
    summaries: Mapping[str, Mapping[int, Json]],
    arms: Mapping[str, ArmInfo],
    *,
    baseline: str = "no_attack",
    frozen: str = "frozen",
    table: Json | None = None,
) -> Json:
    """Means over seeds and differences paired by seed: comparison.json.

    Every numeric leaf of the summaries becomes {mean, ci95, n, values}, `values` in the order of `seeds`
    (None for a missing run). Beside them, for each arm, with `final` the final accuracy (fractions):

        clean_cost     = baseline.final - (the same defence, nobody attacking).final; None for the baseline's
        kept_gain      = (arm.final - frozen.final) / (baseline.final - frozen.final), see `kept_gain`
        loss_to_attack = baseline.final - arm.final, for attacked arms
        recovered      = (arm.final - undefended.final) / (baseline.final - undefended.final), for attacked arms

    all paired by seed; undefended is the arm with the baseline's defence that is attacked alike. `paired.A.B.KEY` is
    accuracy.KEY of the arm A minus that of B, see `paired_intervals`, for all arms that share seeds. `worst.DEFENSE`
    is the attacked arm with that defence's lowest mean final accuracy. `unequal_rounds` lists the arms in which some
    seed ran for another number of rounds than the baseline: their paired numbers compare runs of different length.
    `detectors` are those of the summaries' `scores`.

    Args:
        summaries: `summaries[arm][seed]`, each by `summarise`; arms go by their ids.
        arms: one entry for each arm in `summaries`; pairing looks at these, never at names.
        baseline: the arm that learns undefended while nobody attacks.
        frozen: the arm that does not learn.
        table: {rows {id: label}, columns {id: label}, cells {row: {column: arm}}} of a study that is one.

    Raises:
        ValueError: two arms are the same defence without attack, or there is no run at all.
    """
    seeds = sorted({seed for runs in summaries.values() for seed in runs})
    final = {arm: column(runs, seeds, ("accuracy", "final")) for arm, runs in summaries.items()}
    absent: Values = [None] * len(seeds)
    ceiling, floor = final.get(baseline, absent), final.get(frozen, absent)
    shapes = [run for runs in summaries.values() for run in runs.values()]  # an arm may have no run yet
    if not shapes:
        raise ValueError("nothing to compare: no arm has a finished run")
    clean, undefended = clean_arms(summaries, arms), undefended_arms(arms, baseline)
    entries: Json = {}
    for arm, runs in summaries.items():
        twin = clean.get(arms[arm].defense)
        cost = subtract(ceiling, final[twin]) if twin is not None and twin != baseline else absent
        entries[arm] = {
            "info": asdict(arms[arm]),
            **intervals(shapes, runs, seeds),
            "clean_cost": mean_interval(cost),
            "kept_gain": kept_gain(final[arm], floor, ceiling),
            "loss_to_attack": mean_interval(subtract(ceiling, final[arm]) if arms[arm].attacked else absent),
            "recovered": kept_gain(final[arm], final.get(undefended.get(arm, ""), absent), ceiling),
        }
    return {
        "schema": SCHEMA_VERSION,
        "seeds": seeds,
        "baseline": baseline,
        "frozen": frozen,
        "arms": entries,
        "paired": paired(entries),
        "undefended": {arm: other for arm, other in undefended.items() if {arm, other} <= set(entries)},
        "table": table,
        "detectors": known_detectors(shapes),
        "worst": worst(entries),
        "unequal_rounds": unequal_rounds(summaries, baseline=baseline, frozen=frozen),
    }


def clean_arms(summaries: Mapping[str, object], arms: Mapping[str, ArmInfo]) -> dict[str, str]:
    """The arm without attack of each defence."""
    result: dict[str, str] = {}
    for arm in summaries:
        if not arms[arm].attacked and result.setdefault(arms[arm].defense, arm) != arm:
            other = result[arms[arm].defense]
            raise ValueError(f"arms {other!r} and {arm!r} are both {arms[arm].defense!r} without attack")
    return result


def undefended_arms(arms: Mapping[str, ArmInfo], baseline: str) -> dict[str, str]:
    """For each attacked arm the one, attacked alike, whose server does what the baseline's does."""
    if baseline not in arms:
        return {}
    plain = {info.attack: arm for arm, info in arms.items() if info.attacked and info.defense == arms[baseline].defense}
    return {arm: plain[info.attack] for arm, info in arms.items() if info.attacked and info.attack in plain}


def paired(entries: Json) -> Json:
    """`paired[A][B][KEY]` of the arms' `accuracy.KEY.values`; the other way round it is the same with its sign."""
    names = [
        (first, second, key)
        for first, second in combinations(entries, 2)
        for key in entries[first]["accuracy"]  # in its order: that of a set changes from process to process
        if key in entries[second]["accuracy"]
    ]
    columns = [[entries[arm]["accuracy"][key]["values"] for arm in (first, second)] for first, second, key in names]
    result: Json = {}
    differences = paired_intervals([subtract(*pair) for pair in columns], limit=1.0)
    for (first, second, key), interval in zip(names, differences, strict=True):
        if interval["n"]:
            result.setdefault(first, {}).setdefault(second, {})[key] = interval
            result.setdefault(second, {}).setdefault(first, {})[key] = opposite(interval)
    return result


def opposite(interval: Json) -> Json:
    """The interval of the differences with their signs turned."""
    ends = {"low": negative(interval["high"]), "high": negative(interval["low"])}
    resampled = interval["bootstrap"]
    return (
        interval
        | ends
        | {
            "mean": negative(interval["mean"]),
            "values": [negative(value) for value in interval["values"]],
            "bootstrap": {"low": negative(resampled["high"]), "high": negative(resampled["low"])},
        }
    )


def negative(value: float | None) -> float | None:
    """`-value`, without a negative zero; None stays."""
    return None if value is None else 0.0 - value


def column(runs: Mapping[int, Json], seeds: Sequence[int], path: Sequence[str]) -> Values:
    """The leaf at `path` of each seed's summary; None where the run or the leaf is missing."""

    def leaf(node: object) -> float | None:
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return float(node) if is_number(node) else None

    return [leaf(runs.get(seed)) for seed in seeds]


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is an int or a float, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def intervals(
    nodes: Sequence[object], runs: Mapping[int, Json], seeds: Sequence[int], path: tuple[str, ...] = ()
) -> Json:
    """The tree of `mean_interval`s over the leaves at `path`; `nodes` are the study's subtrees there."""
    trees = [node for node in nodes if isinstance(node, dict)]
    result: Json = {}
    for key in dict.fromkeys(key for tree in trees for key in tree):
        if not path and key in NOT_MEASURED:
            continue
        children = [tree.get(key) for tree in trees]
        if any(isinstance(child, dict) for child in children):
            result[key] = intervals(children, runs, seeds, (*path, key))
        elif all(child is None or is_number(child) for child in children):
            result[key] = mean_interval(column(runs, seeds, (*path, key)))
    return result


def worst(entries: Json) -> Json:
    """By defence: {arm, **interval} of its lowest mean final accuracy over the attacked arms."""
    result: Json = {}
    for arm, entry in entries.items():
        interval, defense = entry["accuracy"]["final"], entry["info"]["defense"]
        if not entry["info"]["attacked"] or interval["mean"] is None:
            continue
        if defense not in result or interval["mean"] < result[defense]["mean"]:
            result[defense] = {"arm": arm, **interval}
    return result


def unequal_rounds(summaries: Mapping[str, Mapping[int, Json]], *, baseline: str, frozen: str) -> list[str]:
    """Learning arms with a seed whose number of rounds is not the baseline's."""
    expected = {seed: run["rounds"] for seed, run in summaries.get(baseline, {}).items()}
    return [
        arm
        for arm, runs in summaries.items()
        if arm != frozen and any(run["rounds"] != expected.get(seed, run["rounds"]) for seed, run in runs.items())
    ]


def arm_label(comparison: Json, arm: str) -> str:
    """What people call the arm; its id, where comparison.json is from before there were labels."""
    return str(comparison["arms"][arm]["info"].get("label", arm))
