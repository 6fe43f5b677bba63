"""The page of a comparison or a sweep: arms side by side, then each arm by itself."""

from collections.abc import Mapping

from fedmd.report.html.arms_blocks import accuracy_blocks, curve_blocks
from fedmd.report.html.cards import comparison_cards, sweep_cards
from fedmd.report.html.content import Block, Note, Page, Section, Table
from fedmd.report.html.evidence import Arms, Evidence, Run
from fedmd.report.html.pictures import strip_pictures
from fedmd.report.html.run_blocks import score_blocks
from fedmd.report.html.run_page import attack_success, footer
from fedmd.report.html.settings import settings_section
from fedmd.report.statistics.baselines import ARMS_CAPTION, arm_rows, comparison_rows
from fedmd.report.statistics.comparison import CAPTION, column, comparison_table, detector_auroc, intervals
from fedmd.report.statistics.crosstab import CROSSED_CAPTION, crossed_tables
from fedmd.report.statistics.intervals import mean_interval
from fedmd.report.table import Cell, Estimate, percent, plain
from fedmd.types import Json

MEASURES = {
    "burn-in": ("accuracy", "burn_in"),
    "before attack": ("accuracy", "before_attack"),
    "accumulation loss": ("accumulation_loss",),
    "trigger drop": ("trigger_drop",),
    "final": ("accuracy", "final"),
    "corrected": ("defense", "corrected_share"),
    "rejected": ("defense", "rejected_share"),
}
ATTACK_SUCCESS = {"attack success": ("attack_success", "final")}  # where a backdoor was planted
SWEEP_CAPTION = (
    "Accuracies, their differences, attack success and shares in %; AUROC of what the defence holds against its "
    "threshold, poisoned against clean samples. Mean ± half width of the 95 % t-interval over seeds; no interval for a "
    "single one."
)


def arms_page(evidence: Evidence, title: str, details: int) -> Page:
    """Arms side by side, and the first `details` arms that have runs by themselves."""
    runs = [run for by_seed in evidence.arms.values() for run in by_seed.values()]
    seeds = sorted({seed for by_seed in evidence.arms.values() for seed in by_seed})
    lead = f"{len(evidence.arms)} arms, {len(runs)} runs, seeds {', '.join(map(str, seeds)) or 'unknown'}."
    comparison = evidence.comparison
    cards = comparison_cards(comparison) if comparison else sweep_cards(sweep_rows(evidence.arms))
    sections = [
        Section("table", "Results", result_blocks(evidence)),
        Section("accuracy", "Accuracy over rounds", accuracy_blocks(evidence.arms)),
        Section("detection", "Detection", [*curve_blocks(evidence.arms), *rival_tables(evidence)]),
        arms_section(evidence.arms, details),
    ]
    if runs:
        sections.append(settings_section(runs))
    return Page(title, evidence.kind, lead, cards, sections, footer(runs[0].summary) if runs else "fedmd")


def result_blocks(evidence: Evidence) -> list[Block]:
    """The table of arms, the seeds' own final accuracies, and what to keep in mind."""
    comparison = evidence.comparison
    rows = comparison_table(comparison) if comparison else sweep_rows(evidence.arms)
    crossed = crossed_tables(comparison) if comparison else {}
    blocks: list[Block] = [
        Table.of(table, f"{title[0].upper()}{title[1:]}. {CROSSED_CAPTION}") for title, table in crossed.items()
    ]
    folded = "Arm by arm" if crossed else ""
    blocks.append(Table.of(rows, CAPTION if comparison else SWEEP_CAPTION, folded))
    if comparison and comparison["unequal_rounds"]:
        names = ", ".join(comparison["unequal_rounds"])
        blocks.append(Note(f"Not of the same number of rounds as the baseline, so compare with care: {names}."))
    if comparison:
        final = {arm: entry["accuracy"]["final"]["values"] for arm, entry in comparison["arms"].items()}
        blocks.append(seeds_table(final, comparison["seeds"]))
    return blocks


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
    everybody = [run.summary for runs in arms.values() for run in runs.values()]
    succeeds = any(attack_success(summary)["final"] is not None for summary in everybody)
    rows: list[dict[str, Cell]] = []
    for arm, runs in arms.items():
        summaries = {seed: run.summary for seed, run in runs.items()}
        columns = MEASURES | (ATTACK_SUCCESS if succeeds else {})
        cells = {name: percent(mean_interval(column(summaries, list(runs), path))) for name, path in columns.items()}
        auroc = plain(detector_auroc(detection_intervals(runs)))
        rows.append({"arm": arm, "runs": str(len(runs)), **cells, "AUROC": auroc})
    return rows


def detection_intervals(runs: Mapping[int, Run]) -> Json:
    """Means and intervals of everything under `detection` over the seeds of an arm."""
    summaries = {seed: run.summary for seed, run in runs.items()}
    return intervals([one["detection"] for one in summaries.values()], summaries, list(runs), ("detection",))


def rival_tables(evidence: Evidence) -> list[Block]:
    """Arms by detectors, where the runs have rivals."""
    comparison = evidence.comparison
    rows = (
        comparison_rows(comparison)
        if comparison
        else arm_rows({arm: detection_intervals(runs) for arm, runs in evidence.arms.items()})
    )
    return [Table.of(rows, ARMS_CAPTION)] if rows else []


def arms_section(arms: Arms, details: int) -> Section:
    """Each arm at its first seed: the detector's score over time and by phase, clients, images."""
    present = [(arm, *next(iter(runs.items()))) for arm, runs in arms.items() if runs]
    shown = present[:details]
    first = next((arm for arm, _, run in shown if run.strip), shown[0][0] if shown else "")
    parts = []
    for i, (arm, seed, run) in enumerate(shown):
        blocks = score_blocks(run, f"arm-{i}")
        if run.strip:
            blocks.append(strip_pictures(run.strip))
        parts.append(Section(f"arm-{i}", arm, blocks, f"seed {seed}", unfolded=arm == first))
    lead = "One seed of each arm. A run's own report, made from its own folder, shows any other."
    if len(present) > details:
        lead += f" {details} of {len(present)} arms are here, so that the page stays small."
    return Section("arms", "Arm by arm", [], lead, parts)
