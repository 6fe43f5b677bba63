"""What came out, in one sentence, for the top of a report and the end of the terminal. Pure; no files."""

from collections.abc import Mapping, Sequence

from fedmd.report.statistics.comparison import arm_label
from fedmd.types import Json

ONE_SEED = "One seed proves nothing: compare arms over several, with fedmd compare."


def study_answer(comparison: Json) -> str:
    """What the attack that hurts most costs, what the best defence against it gives back, flags, and costs.

    Where nobody attacks an undefended arm, or no baseline is there to compare with: between what the arms lie.
    """
    entries, baseline = comparison["arms"], comparison["baseline"]
    losses = comparison.get("paired", {}).get(baseline, {})
    plain = sorted({*comparison.get("undefended", {}).values()} & {*losses})
    if not plain:
        values = {arm: entry["accuracy"]["final"]["values"] for arm, entry in entries.items()}
        return sweep_answer({arm_label(comparison, arm): _known(finals) for arm, finals in values.items()})
    worst = max(plain, key=lambda arm: losses[arm]["final"]["mean"])
    loss = losses[worst]["final"]
    attack = "the attack"
    if len(plain) > 1:
        attack = f"the worst of {len(plain)} attacks ({arm_label(comparison, worst)})"
    sentence = f"{attack[0].upper()}{attack[1:]} costs {points(loss['mean'])}{certainty(loss)}"
    if not clearly_above_zero(loss):
        sentence += ", which is not told from nothing"
    defenders = [arm for arm, other in comparison["undefended"].items() if other == worst and arm != worst]
    defenders = [arm for arm in defenders if entries[arm]["accuracy"]["final"]["mean"] is not None]
    if defenders:
        best = max(defenders, key=lambda arm: entries[arm]["accuracy"]["final"]["mean"])
        among = f", the best of {len(defenders)} defences," if len(defenders) > 1 else ""
        sentence += f"; {arm_label(comparison, best)}{among} {_of_the_defence(comparison, best, worst, loss)}"
    return sentence + "." + (f" {ONE_SEED}" if loss["n"] < 2 else "")


def _of_the_defence(comparison: Json, arm: str, undefended: str, loss: Json) -> str:
    entry = comparison["arms"][arm]
    gained = comparison["paired"][arm][undefended]["final"]["mean"]
    recovered = entry.get("recovered", {}).get("mean")
    if gained <= 0:
        parts = [f"ends {points(-gained)} lower still"]
    elif recovered is not None and clearly_above_zero(loss):
        parts = [f"recovers {100 * recovered:.0f} % of it"]
    else:
        parts = [f"ends {points(gained)} higher"]
    flagged = {rate: interval.get("mean") for rate, interval in entry["detection"].get("flagged", {}).items()}
    if flagged.get("tpr") is not None and flagged.get("fpr") is not None and any(flagged.values()):
        parts.append(f"flags {100 * flagged['tpr']:.0f} % of the poison at {100 * flagged['fpr']:.0f} % false alarms")
    if (cost := entry["clean_cost"]["mean"]) is not None:
        verb = "costs" if cost >= 0 else "gains"
        parts.append(f"{verb} {points(abs(cost))} when nobody attacks")
    return ", ".join(parts[:-1]) + (", and " if len(parts) > 1 else "") + parts[-1]


def run_answer(summary: Json) -> str:
    """What happened to the accuracy of one run, and what its defence flagged."""
    accuracy, malicious = summary["accuracy"], summary["malicious_clients"]
    before, final = accuracy["before_attack"], accuracy["final"]
    if final is None:
        return ""
    flagged = summary["detection"].get("flagged") or {}
    acts = bool(summary["defense"]["corrected_share"] or summary["defense"]["rejected_share"])
    told = ""
    if acts and flagged.get("tpr") is not None and flagged.get("fpr") is not None:
        told = (
            f" The defence flagged {100 * flagged['tpr']:.0f} % of the poison at {100 * flagged['fpr']:.0f} % false "
            "alarms."
        )
    elif acts and flagged.get("fpr") is not None:
        told = f" The defence flagged {100 * flagged['fpr']:.0f} % of what was clean."
    if not malicious or before is None:
        start = accuracy["burn_in"]
        moved = "" if start is None else f", from {100 * start:.1f} % after burn-in"
        sentence = f"Nobody attacked; accuracy ends at {100 * final:.1f} %{moved}."
    else:
        change = f"{points(abs(final - before))} {'lower' if final < before else 'higher'}"
        sentence = f"Attacked, accuracy ends at {100 * final:.1f} %, {change} than before the attack."
    return f"{sentence}{told} {ONE_SEED}"


def sweep_answer(finals: Mapping[str, Sequence[float]]) -> str:
    """Where the arms of a sweep end: `finals[label]` are the final accuracies (fractions) of its seeds."""
    means = {label: sum(values) / len(values) for label, values in finals.items() if values}
    if len(means) < 2:
        return ONE_SEED if any(len(values) == 1 for values in finals.values()) else ""
    best, worst = max(means, key=lambda label: means[label]), min(means, key=lambda label: means[label])
    counts = {len(values) for values in finals.values() if values}
    told = f" Each is a mean over {min(counts)} seeds{' or more' if len(counts) > 1 else ''}."
    told = f" {ONE_SEED}" if min(counts) < 2 else told
    low, high = f"{100 * means[worst]:.1f} % ({worst})", f"{100 * means[best]:.1f} % ({best})"
    return f"Final accuracy lies between {low} and {high}.{told}"


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def points(fraction: float) -> str:
    """`10.4 points` of a difference of accuracies."""
    return f"{100 * fraction:z.1f} points"


def certainty(interval: Json) -> str:
    """` (95 % 8.1 to 12.6, 5 seeds)`; nothing for one seed."""
    if interval["n"] < 2 or interval.get("low") is None:
        return ""
    return f" (95 % {100 * interval['low']:z.1f} to {100 * interval['high']:z.1f}, {interval['n']} seeds)"


def clearly_above_zero(interval: Json) -> bool:
    """Whether the 95 % interval leaves out 0 and all below; of one seed nobody knows."""
    low = interval.get("low")
    return interval["n"] > 1 and low is not None and bool(low > 0)
