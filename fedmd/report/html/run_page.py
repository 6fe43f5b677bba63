"""The page of a single run."""

from collections import Counter
from collections.abc import Sequence

from fedmd.report.answer import run_answer
from fedmd.report.html.clients import client_blocks
from fedmd.report.html.content import Block, Card, Note, Page, Section, Table
from fedmd.report.html.example_images import example_pictures
from fedmd.report.html.run_figures import accuracy_plot, detection_blocks, score_blocks
from fedmd.report.loading import shown
from fedmd.report.results import Run, flat
from fedmd.report.scores import DISCREPANCY, Score, held_score, scores_of
from fedmd.report.statistics.tables import RUN_DETECTORS_CAPTION, run_detectors_table
from fedmd.report.table import MISSING, Estimate, Row, cell_text
from fedmd.types import Json

_NAMED = 10  # rounds in a note
NO_IMAGES = "No images were kept: nobody poisoned in an accumulative round."


def run_page(run: Run, title: str) -> Page:
    """Everything one run left behind."""
    summary = run.summary
    made_by = f"{title} · {footer(summary)}"
    parts = (run_lead(summary), run_cards(summary), run_sections(run), made_by, run_answer(summary))
    return Page(run_title(summary), "run", *parts, warnings_of([run]))


def run_title(summary: Json) -> str:
    """`DSC against accumulative, φ = 0.3, on mnist5k`: the run by its settings."""
    config = summary["config"]
    attack, defense = config.get("attack", {}), summary["defense"]["name"]
    against = "while nobody attacks"
    if summary["malicious_clients"]:
        against = f"against {attack.get('name', MISSING)}, φ = {attack.get('fraction', 0):g}"
    strategy = f"{config['strategy']['name']}, " if config.get("mode") == "update" else ""
    how = "undefended" if defense == "none" else defense
    return f"{strategy}{how} {against}, on {config.get('data', {}).get('name', MISSING)}"


def warnings_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """Every warning of the runs once; of several runs, with how many it is true of."""
    count = Counter(text for run in runs for text in run.summary.get("warnings", ()))
    return tuple(text if len(runs) == 1 else f"{text} ({n} of {len(runs)} runs)" for text, n in count.items())


def run_sections(run: Run) -> list[Section]:
    """Accuracy, the detector's score, detection, images, numbers, settings."""
    accuracy: list[Block] = [accuracy_plot(run, "accuracy"), phase_ends_table(run.summary)] if run.metrics else []
    accuracy += undone_notes(run)
    images: list[Block] = [example_pictures(run.example_images) if run.example_images else Note(NO_IMAGES)]
    return [
        Section("accuracy", "Accuracy", accuracy or [Note("The rounds' metrics are no longer in the folder.")]),
        Section("discrepancy", run.detector, score_blocks(run, "discrepancy")),
        Section("clients", "Clients", client_blocks(run) or [Note("Nothing that a client sent is on record.")]),
        Section("detection", "Detection", [*detection_blocks(run, "detection"), *detection_numbers(run)]),
        Section("images", "Images", images),
        Section("numbers", "Numbers", [cost_table(run.summary), *([rounds_table(run)] if run.metrics else [])]),
        settings_section([run]),
    ]


def run_lead(summary: Json) -> str:
    """One sentence about the run."""
    config, clients, malicious = summary["config"], summary["clients"], len(summary["malicious_clients"])
    attack, data = (config.get(section, {}).get("name", MISSING) for section in ("attack", "data"))
    who = f"{malicious} of {clients} clients malicious"
    if (config.get("federation", {}).get("clients_per_round") or clients) < clients:
        who = f"{malicious} malicious clients among those asked of {clients}"
    text = (
        f"Defence {summary['defense']['name']}, attack {attack} with {who}, {summary['rounds']} rounds on {data}, "
        f"seed {summary['seed']}."
    )
    if config.get("mode") != "update":
        return text
    return (
        f"Strategy {config['strategy']['name']}. {text} In mode=update, an extension of the papers, clients send what "
        "they learned: what is called a sample below is one client's update of one round."
    )


def run_cards(summary: Json) -> list[Card]:
    """The headline numbers."""
    accuracy, sample, defense = summary["accuracy"], own_detection(summary)["sample"], summary["defense"]
    before_attack, before_trigger = unit(accuracy["before_attack"], "%"), unit(accuracy["before_trigger"], "%")
    counts = (
        f"{held_score(scores_of(summary)).label}; {sample['n_poisoned']} poisoned, {sample['n_clean']} clean samples"
    )
    cards = [
        Card("Final accuracy", unit(accuracy["final"], "%"), f"{unit(accuracy['burn_in'], '%')} after burn-in"),
        Card("Accumulation loss", unit(summary["accumulation_loss"], "points"), f"{before_attack} before the attack"),
        Card("Trigger drop", unit(summary["trigger_drop"], "points"), f"{before_trigger} before the trigger"),
        Card("Detection AUROC", cell_text(Estimate(sample["auroc"])), counts),
        Card("Corrected", unit(defense["corrected_share"], "%"), f"{unit(defense['rejected_share'], '%')} rejected"),
    ]
    success = attack_success(summary)
    if success["final"] is not None:
        note = f"stamped images taken for the target; {unit(success['before_attack'], '%')} before the attack"
        cards.append(Card("Attack success", unit(success["final"], "%"), note))
    return cards


def attack_success(summary: Json) -> Json:
    """The attack success rate at the end of each phase, all None in a summary older than it."""
    success: Json = summary.get("attack_success") or dict.fromkeys(summary["accuracy"])
    return success


def phase_ends_table(summary: Json) -> Table:
    """Accuracy at the ends of the phases."""
    measures = {"accuracy (%)": summary["accuracy"]}
    if any(value is not None for value in attack_success(summary).values()):
        measures["attack success (%)"] = attack_success(summary)
    rows: list[Row] = [
        {
            "end of phase": end.replace("_", " "),
            **{name: Estimate(values[end], None, 100, 1) for name, values in measures.items()},
        }
        for end in summary["accuracy"]
    ]
    return Table.of(
        rows, f"Test {' and '.join(name.removesuffix(' (%)') for name in measures)} at the ends of the phases"
    )


def undone_notes(run: Run) -> list[Block]:
    """A note on the rounds whose result was not usable; nothing where there are none."""
    undone = [row for row in run.metrics if row.get("undone")]
    if not undone:
        return []
    rounds = ", ".join(str(row["round"]) for row in undone[:_NAMED]) + (", ..." if len(undone) > _NAMED else "")
    return [Note(f"The model stayed as it was in {len(undone)} rounds ({rounds}): {undone[0]['undone']}.")]


def detection_table(summary: Json) -> Table:
    """Detection quality of samples and of clients: of the detector and, where that is another, of the discrepancy."""
    told = scores_of(summary)
    discrepancy = Score.of(DISCREPANCY, told["detectors"])
    scores = {held_score(told).label: own_detection(summary), discrepancy.label: summary["detection"]}
    names = {
        "auroc": "AUROC, samples",
        "average_precision": "Average precision, samples",
        "tpr_at_fpr_05": "TPR at FPR ≤ 5 %, samples",
    }
    rows: list[Row] = [
        {"measure": label, **{name: Estimate(score["sample"].get(key)) for name, score in scores.items()}}
        for key, label in names.items()
    ]
    clients = {name: Estimate(score["client"]["auroc"]) for name, score in scores.items()}
    rows.append({"measure": "AUROC, clients (by their mean)", **clients})
    return Table.of(rows, "How well a score tells poisoned from clean; 1 is perfect, AUROC 0.5 is chance")


def detection_numbers(run: Run) -> list[Block]:
    """The tables, and a note where the threshold did not keep its promise."""
    blocks: list[Block] = [detection_table(run.summary)]
    if rows := run_detectors_table(run.summary):
        blocks.append(Table.of(rows, RUN_DETECTORS_CAPTION))
    drifted = [row for row in run.metrics if row.get("threshold_drift")]
    if drifted:
        promised = 100 * drifted[0]["threshold_drift"]["promised"]
        rates = [100 * row["threshold_drift"]["rate"] for row in drifted]
        blocks.append(
            Note(
                f"Threshold drift in {len(drifted)} rounds from round {drifted[0]['round']} on: {min(rates):.1f} to "
                f"{max(rates):.1f} % of what was judged lay above the threshold, which promised {promised:.1f} % of "
                "clean traffic. Either somebody attacks, or the stream is no longer like the trusted set."
            )
        )
    return blocks


def own_detection(summary: Json) -> Json:
    """Detection by what the defence holds against its threshold; older summaries know the discrepancy's only."""
    detection: Json = summary["detection"]
    own: Json = detection.get("detector", detection)
    return own


def cost_table(summary: Json) -> Table:
    """Seconds by stage."""
    rows: list[Row] = [
        {"stage": stage.replace("_", " "), "seconds": Estimate(value, digits=1)}
        for stage, value in summary["wall_s"].items()
        if value is not None  # a stage that the mode does not have
    ]
    received = summary["bytes_received"] / 2**20
    return Table.of(rows, f"Wall time; {received:.1f} MiB received from clients")


def rounds_table(run: Run) -> Table:
    """The run round by round; the threshold's column says whose it is, unless it is the discrepancy's."""
    threshold = "threshold" if run.score.name == DISCREPANCY else f"threshold ({run.detector.lower()})"
    backdoored = any(row.get("attack_success") is not None for row in run.metrics)
    rows: list[Row] = [
        {
            "round": str(row["round"]),
            "phase": row["phase"],
            "accuracy (%)": Estimate(row["accuracy"], None, 100, 1),
            **({"attack success (%)": Estimate(row["attack_success"], None, 100, 1)} if backdoored else {}),
            "loss": Estimate(row["loss"]),
            "discrepancy": Estimate(row["discrepancy"]["mean"]),
            threshold: Estimate(row["threshold"]),
            "corrected (%)": Estimate(row["corrected_share"], None, 100, 1),
            "rejected (%)": Estimate(row["rejected_share"], None, 100, 1),
            "refused clients": str(len(row["rejections"])),
        }
        for row in run.metrics
    ]
    return Table.of(rows, "Round by round; discrepancy in nats", folded=f"All {len(rows)} rounds")


def settings_section(runs: Sequence[Run]) -> Section:
    """Settings that all runs share, how the others vary, and the versions they ran with."""
    configs = [flat(run.summary["config"]) for run in runs]
    values = {
        key: list(dict.fromkeys(shown(config[key]) if key in config else "–" for config in configs))
        for key in dict.fromkeys(key for config in configs for key in config)
    }
    blocks: list[Block] = []
    if varied := [{"setting": key, "values": ", ".join(texts)} for key, texts in values.items() if len(texts) > 1]:
        blocks.append(Table.of(varied, "Settings that differ between the runs"))
    caption = "Settings of every run here" if varied else "Settings, as Hydra overrides name them"
    same = [{"setting": key, "value": texts[0]} for key, texts in values.items() if len(texts) == 1]
    blocks.append(Table.of(same, caption, folded=f"All {len(same)} settings"))
    versions = [run.summary["versions"] for run in runs]
    rows = [
        {"package": name, "version": ", ".join(dict.fromkeys(str(known.get(name, "–")) for known in versions))}
        for name in dict.fromkeys(name for known in versions for name in known)
    ]
    return Section("settings", "Settings and versions", [Table.of(rows, "Versions of what decides a result"), *blocks])


def unit(fraction: float | None, name: str) -> str:
    """A fraction as `87.3 %` or `87.3 points`."""
    return MISSING if fraction is None else f"{cell_text(Estimate(fraction, None, 100, 1))} {name}"


def footer(summary: Json) -> str:
    """Who made the page."""
    return f"fedmd {summary['versions'].get('fedmd', '')}"
