"""The page of a comparison or a sweep: arms side by side, then each arm by itself."""

from collections.abc import Iterator, Mapping, Sequence

from fedmd.report.answer import clearly_above_zero, study_answer, sweep_answer
from fedmd.report.html.arms_figures import accuracy_blocks, curve_blocks, final_blocks
from fedmd.report.html.content import Block, Card, Note, Page, Section, Table
from fedmd.report.html.example_images import example_pictures
from fedmd.report.html.run_figures import score_blocks
from fedmd.report.html.run_page import footer, settings_section, warnings_of
from fedmd.report.results import Arms, Run, Study
from fedmd.report.scores import known_detectors
from fedmd.report.statistics.comparison import arm_label, column, intervals
from fedmd.report.statistics.intervals import mean_interval
from fedmd.report.statistics.tables import (
    ARMS_CAPTION,
    CROSSTAB_CAPTION,
    CROSSTAB_DIFFERENCES_CAPTION,
    CUT,
    DETECTORS_CAPTION,
    DIFFERENCES_CAPTION,
    WIDE,
    Tables,
    arms_table,
    comparison_detectors_table,
    crosstab_differences,
    crosstabs,
    detector_auroc,
    detectors_table,
    differences_table,
    without_empty_columns,
)
from fedmd.report.table import Cell, Estimate, cell_text, percent, rate, share
from fedmd.types import Json

MOST_CARDS = 5
MEASURES = {
    "final": ("accuracy", "final"),
    "burn-in": ("accuracy", "burn_in"),
    "before attack": ("accuracy", "before_attack"),
    "accumulation loss": ("accumulation_loss",),
    "trigger drop": ("trigger_drop",),
    "corrected": ("defense", "corrected_share"),
    "rejected": ("defense", "rejected_share"),
    "attack success": ("attack_success", "final"),  # where a backdoor was planted
}
DIFFERENCES = ("accumulation loss", "trigger drop")  # of them; the others are shares
SWEEP_CAPTION = (
    "Accuracies, their differences, attack success and shares in %; AUROC of what the defence holds against its "
    "threshold, poisoned against clean samples. Mean ± half width of the 95 % t-interval over seeds; no interval for a "
    "single one. " + CUT + WIDE
)


def arms_page(study: Study, name: str, details: int) -> Page:
    """Arms side by side, and the first `details` arms that have runs by themselves; `name` is the folder's."""
    arms, comparison = study.by_label, study.comparison
    runs = [run for by_seed in arms.values() for run in by_seed.values()]
    seeds = sorted({seed for by_seed in arms.values() for seed in by_seed})
    lead = f"{len(arms)} arms, {len(runs)} runs, seeds {', '.join(map(str, seeds)) or 'unknown'}."
    cards = comparison_cards(comparison) if comparison else sweep_cards(sweep_rows(arms))
    sections = [
        Section("table", "Results", result_blocks(study)),
        Section("accuracy", "Accuracy", [*final_blocks(final_accuracies(study), arms), *accuracy_blocks(arms)]),
        Section("detection", "Detection", [*curve_blocks(arms), *detector_blocks(study)]),
        arms_section(arms, details),
    ]
    if runs:
        sections.append(settings_section(runs))
    made_by = f"{name} · {footer(runs[0].summary) if runs else 'fedmd'}"
    finals = {arm: [value for value in seeds.values()] for arm, seeds in final_accuracies(study).items()}
    answer = study_answer(comparison) if comparison else sweep_answer(finals)
    return Page(study_title(study, name), study.kind, lead, cards, sections, made_by, answer, warnings_of(runs))


def study_title(study: Study, name: str) -> str:
    """What varies in a sweep, the folder of a comparison, and the data: `attack.fraction × defense on digits`."""
    title = name
    if study.kind == "sweep" and len(study.arms) > 1:
        title = " × ".join(setting.partition("=")[0] for setting in next(iter(study.arms)).split(", "))
    data = {run.config["data"]["name"] for runs in study.arms.values() for run in runs.values()}
    return f"{title} on {data.pop()}" if len(data) == 1 else title


def result_blocks(study: Study) -> list[Block]:
    """The table of arms, the seeds' own final accuracies, and what to keep in mind."""
    comparison = study.comparison
    if comparison is None:
        return [Table.of(sweep_rows(study.by_label), SWEEP_CAPTION)]
    tables = crosstabs(comparison)
    blocks: list[Block] = [
        *_crosstab_blocks(crosstab_differences(comparison), CROSSTAB_DIFFERENCES_CAPTION),
        *_crosstab_blocks(tables, CROSSTAB_CAPTION),
    ]
    if differences := differences_table(comparison):
        blocks.append(Table.of(differences, DIFFERENCES_CAPTION, "Differences" if tables else ""))
    blocks.append(Table.of(arms_table(comparison), ARMS_CAPTION, "Arm by arm" if tables else ""))
    if comparison["unequal_rounds"]:
        names = ", ".join(arm_label(comparison, arm) for arm in comparison["unequal_rounds"])
        blocks.append(Note(f"Not of the same number of rounds as the baseline, so compare with care: {names}."))
    final = {study.label(arm): entry["accuracy"]["final"]["values"] for arm, entry in comparison["arms"].items()}
    blocks.append(seeds_table(final, comparison["seeds"]))
    return blocks


def _crosstab_blocks(tables: Tables, caption: str) -> Iterator[Table]:
    """The tables, with what they have in common above the first."""
    for title, rows in tables.items():
        yield Table.of(rows, f"{title[0].upper()}{title[1:]}. {caption}".rstrip(), heat=True)
        caption = ""


def final_accuracies(study: Study) -> dict[str, dict[int, float]]:
    """Of each arm, by its label, the final accuracy of each seed."""
    if comparison := study.comparison:
        values = {arm: entry["accuracy"]["final"]["values"] for arm, entry in comparison["arms"].items()}
        pairs = {arm: zip(comparison["seeds"], column, strict=True) for arm, column in values.items()}
    else:
        pairs = {
            arm: zip(runs, [run.summary["accuracy"]["final"] for run in runs.values()], strict=True)
            for arm, runs in study.arms.items()
        }
    return {
        study.label(arm): {seed: value for seed, value in known if value is not None} for arm, known in pairs.items()
    }


def seeds_table(final: Mapping[str, list[float | None]], seeds: list[int]) -> Table:
    """Final accuracy of every arm at every seed."""
    rows: list[dict[str, Cell]] = [
        {
            "arm": arm,
            **{f"seed {seed}": Estimate(value, None, 100, 1) for seed, value in zip(seeds, values, strict=True)},
        }
        for arm, values in final.items()
    ]
    return Table.of(rows, "Final accuracy in %, seed by seed", folded="Seed by seed")


def sweep_rows(arms: Arms) -> list[dict[str, Cell]]:
    """One row an arm: means and intervals over its seeds."""
    rows: list[dict[str, Cell]] = []
    for arm, runs in arms.items():
        summaries = {seed: run.summary for seed, run in runs.items()}
        found = {name: mean_interval(column(summaries, list(runs), path)) for name, path in MEASURES.items()}
        cells = {name: (percent if name in DIFFERENCES else share)(interval) for name, interval in found.items()}
        auroc = rate(detector_auroc(detection_intervals(runs)))
        rows.append({"arm": arm, "runs": str(len(runs)), **cells, "AUROC": auroc})
    return without_empty_columns(rows, dict.fromkeys(name for row in rows for name in row))


def detection_intervals(runs: Mapping[int, Run]) -> Json:
    """Means and intervals of everything under `detection` over the seeds of an arm."""
    summaries = {seed: run.summary for seed, run in runs.items()}
    return intervals([one["detection"] for one in summaries.values()], summaries, list(runs), ("detection",))


def detector_blocks(study: Study) -> list[Block]:
    """Arms by detectors, where the runs scored their samples by more than one."""
    if study.comparison:
        rows = comparison_detectors_table(study.comparison)
    else:
        detections = {label: detection_intervals(runs) for label, runs in study.by_label.items()}
        summaries = (run.summary for runs in study.arms.values() for run in runs.values())
        rows = detectors_table(detections, known_detectors(summaries))
    return [Table.of(rows, DETECTORS_CAPTION)] if rows else []


def arms_section(arms: Arms, details: int) -> Section:
    """Each arm at its first seed: the detector's score over time and by phase, clients, images."""
    present = [(arm, *next(iter(runs.items()))) for arm, runs in arms.items() if runs]
    shown = present[:details]
    first = next((arm for arm, _, run in shown if run.example_images), shown[0][0] if shown else "")
    parts = []
    for i, (arm, seed, run) in enumerate(shown):
        blocks = score_blocks(run, f"arm-{i}")
        if run.example_images:
            blocks.append(example_pictures(run.example_images))
        parts.append(Section(f"arm-{i}", arm, blocks, f"seed {seed}", unfolded=arm == first))
    lead = "One seed of each arm. A run's own report, made from its own folder, shows any other."
    if len(present) > details:
        lead += f" {details} of {len(present)} arms are here, so that the page stays small."
    return Section("arms", "Arm by arm", [], lead, parts)


def comparison_cards(comparison: Json) -> list[Card]:
    """Final accuracy of the two anchors, and under the attack that hurts most undefended and with the best defences."""
    entries, undefended = comparison["arms"], set(comparison.get("undefended", {}).values())
    cards = [
        Card(arm_label(comparison, arm), in_percent(entries[arm]["accuracy"]["final"]), note)
        for arm, note in ((comparison["baseline"], "nobody attacks"), (comparison["frozen"], "no online learning"))
        if arm in entries
    ]
    for worst in sorted(comparison["worst"].values(), key=lambda it: (it["arm"] not in undefended, -(it["mean"] or 0))):
        entry = entries[worst["arm"]]
        parts = ["attacked"]
        plain = comparison.get("undefended", {}).get(worst["arm"])
        loss = comparison.get("paired", {}).get(comparison["baseline"], {}).get(plain, {}).get("final")
        told = loss is not None and clearly_above_zero(loss)  # of a loss that may be none, a share is no number
        if plain not in (None, worst["arm"]) and told and entry["recovered"]["mean"] is not None:
            parts.append(f"recovers {100 * entry['recovered']['mean']:.0f} % of what the attack costs")
        if entry["clean_cost"]["mean"] is not None:
            parts.append(f"clean cost {100 * entry['clean_cost']['mean']:z.1f} points")
        cards.append(Card(arm_label(comparison, worst["arm"]), in_percent(worst), "; ".join(parts)))
    return cards[:MOST_CARDS]


def sweep_cards(rows: Sequence[dict[str, Cell]]) -> list[Card]:
    """The best and the worst arm by final accuracy, and the widest detection."""
    ends = [(row["final"], row["arm"]) for row in rows]
    known = [(cell, str(arm)) for cell, arm in ends if isinstance(cell, Estimate) and cell.mean is not None]
    cards = [Card("Arms", str(len(rows)), "runs that differ only in their seed are one arm")]
    if known:
        best, worst = max(known, key=lambda item: item[0].mean or 0), min(known, key=lambda item: item[0].mean or 0)
        cards.append(Card("Highest final accuracy", f"{cell_text(best[0])} %", best[1]))
        cards.append(Card("Lowest final accuracy", f"{cell_text(worst[0])} %", worst[1]))
    return cards


def in_percent(interval: Json) -> str:
    """An accuracy: `87.3 ± 1.2 %`."""
    return f"{cell_text(share(interval))} %"
