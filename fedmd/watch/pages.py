"""The pages of `fedmd watch --serve`: the report's own figures and tables, of what is there so far."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from fedmd.report.figures.latency import latency_figure
from fedmd.report.files import REPORT, round_seconds
from fedmd.report.html.arms_figures import accuracy_blocks, final_blocks
from fedmd.report.html.arms_page import final_accuracies, result_blocks
from fedmd.report.html.clients import client_blocks
from fedmd.report.html.content import Block, Card, Note, Page, Plot, Section, Table
from fedmd.report.html.run_figures import accuracy_plot, score_blocks
from fedmd.report.html.run_page import unit
from fedmd.report.html.svg import inline_svg
from fedmd.report.loading import load
from fedmd.report.monitoring.board import duration
from fedmd.report.results import ReportError, Run, Study
from fedmd.report.table import MISSING, Estimate, Row
from fedmd.watch.folder import Seen, State

_RECENT = 20  # rounds that the pace is the mean of
_SHOWN = 20  # clients in sight, and runs; the others are folded away
_ORDER = (State.RUNNING, State.FAILED, State.STOPPED, State.WAITING, State.FINISHED)
_NOTHING = "Nothing yet: the run has not come to the end of its first round."
_EXPLAINED = {
    State.WAITING: "has not begun",
    State.RUNNING: "goes on",
    State.STOPPED: "has stopped: no server works in its folder; fedmd run resume=RUN_DIR goes on with it",
    State.FAILED: "has failed",
    State.FINISHED: "is finished",
}


def run_page(seen: Seen, title: str, up: str = "") -> Page:
    """One run. `up` is the address of the page of all runs, if there is one."""
    run = Run.read(seen.folder) if seen.state is State.FINISHED else Run(seen.folder, {"config": seen.config})
    config = seen.config
    lead = (
        f"The run {_EXPLAINED[seen.state]}{f' ({seen.why})' if seen.why else ''}. Defence {config['defense']['name']}, "
        f"attack {config['attack']['name']}, mode {config['mode']}, {config['federation']['clients']} clients, "
        f"seed {config['seed']}."
    )
    nothing: list[Block] = [Note(_NOTHING)]
    sections = [
        Section("rounds", "Rounds", [accuracy_plot(run, "accuracy"), _latency_plot(seen)] if seen.metrics else nothing),
        Section("clients", "Clients", client_blocks(run) if seen.metrics else nothing),
        Section("scores", run.detector, score_blocks(run, "scores") if seen.metrics else nothing),
    ]
    links = {"all runs": up} if up else {}
    if (seen.folder / REPORT).exists():
        links["report"] = f"{REPORT}?{seen.name}"
    return Page(title, "live", lead, _run_cards(seen, run), sections, _footer(seen.folder), links=links)


def _run_cards(seen: Seen, run: Run) -> list[Card]:
    metrics = seen.metrics
    at = f"{len(metrics)} of {seen.rounds} rounds" + (f", {metrics[-1]['phase']}" if metrics else "")
    cards = [Card("State", seen.state.value, at)]
    known = [row for row in metrics if row["accuracy"] is not None]
    if known:
        best = max(known, key=lambda row: float(row["accuracy"]))
        note = f"after round {known[-1]['round']}; highest {unit(best['accuracy'], '%')} after round {best['round']}"
        cards.append(Card("Accuracy", unit(known[-1]["accuracy"], "%"), note))
    if not metrics:
        return cards
    latest = metrics[-1]
    flagged = f"{unit(latest['rejected_share'], '%')} rejected, in the latest round"
    cards.append(Card("Corrected", unit(latest["corrected_share"], "%"), flagged))
    inside = sorted(run.quarantined)
    refused = [entry for row in metrics for entry in row["rejections"] if entry["client"] not in run.quarantined]
    told = f"{len(refused)} {'other ' if inside else ''}messages refused"
    told += f", the latest: {refused[-1]['reason'][:80]}" if refused else ""
    cards.append(Card("In quarantine", f"{len(inside)}", (f"{_few(inside)}; " if inside else "") + told))
    pace = fmean(round_seconds(row) for row in metrics[-_RECENT:])
    left = (seen.rounds - len(metrics)) * pace
    cards.append(Card("Pace", f"{pace:.2g} s a round", f"{duration(left)} to go" if left else "all rounds are over"))
    return cards


def _few(clients: Sequence[int]) -> str:
    who = "client" if len(clients) == 1 else "clients"
    return f"{who} {', '.join(map(str, clients[:8]))}" + (", ..." if len(clients) > 8 else "")


def _latency_plot(seen: Seen) -> Plot:
    took = [round_seconds(row) for row in seen.metrics]
    of_late, average = fmean(took[-_RECENT:]), fmean(took)
    words = f"Seconds a round: {of_late:.2g} of late, {average:.2g} on average, at most {max(took):.2g}."
    return Plot(
        "Seconds a round", inline_svg(latency_figure(seen.metrics), "latency", f"Stacked areas. {words}", 3.5), words
    )


def runs_page(path: Path, runs: Sequence[Seen], title: str, addresses: Mapping[str, str]) -> Page:
    """Those of a sweep or a study. `addresses[name]` is where the page of a run is."""
    count = Counter(run.state for run in runs)
    cards = [
        Card(state.value.capitalize(), f"{count[state]}", f"of {len(runs)} runs") for state in _ORDER if count[state]
    ]
    ordered = sorted(runs, key=lambda run: _ORDER.index(run.state))
    visible = max(_SHOWN, sum(run.state is not State.FINISHED and run.state is not State.WAITING for run in runs))
    blocks: list[Block] = [_runs_table(ordered[:visible], "The runs; a click on one shows it", addresses)]
    if rest := ordered[visible:]:
        blocks.append(_runs_table(rest, "The others", addresses, folded=f"{len(rest)} more runs"))
    sections = [Section("runs", "Runs", blocks)]
    try:
        study = load(path)
    except ReportError:
        study = None
    if isinstance(study, Study):
        finals = final_blocks(final_accuracies(study), study.by_label)
        sections.append(Section("results", "Results so far", result_blocks(study)))
        sections.append(Section("accuracy", "Accuracy", [*finals, *accuracy_blocks(study.by_label)]))
    lead = ", ".join(f"{count[state]} {state.value}" for state in _ORDER if count[state]) + "."
    links = {"report": REPORT} if (path / REPORT).exists() else {}
    return Page(title, "live", lead, cards, sections, _footer(path), links=links)


def _runs_table(runs: Sequence[Seen], caption: str, addresses: Mapping[str, str], folded: str = "") -> Table:
    rows: list[Row] = []
    for run in runs:
        known = [row["accuracy"] for row in run.metrics if row["accuracy"] is not None]
        pace = fmean(round_seconds(row) for row in run.metrics[-_RECENT:]) if run.metrics else None
        rows.append(
            {
                "run": run.name,
                "state": run.state.value + (f": {run.why}" if run.why else ""),
                "phase": run.metrics[-1]["phase"] if run.metrics else MISSING,
                "rounds": f"{len(run.metrics)} of {run.rounds}",
                "accuracy (%)": Estimate(known[-1] if known else None, None, 100, 1),
                "s a round": Estimate(pace, digits=2),
            }
        )
    return Table.of(rows, caption, folded, links=[addresses[run.name] for run in runs])


def _footer(path: Path) -> str:
    return f"fedmd watch · {path} · follows the folder and changes nothing in it"
