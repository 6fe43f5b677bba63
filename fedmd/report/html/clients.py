"""A run client by client: whom the defence suspects, and what it takes to follow one of them through the rounds."""

import numpy as np
import pandas as pd

from fedmd.report.html.content import Block, Follow, Table
from fedmd.report.results import Run
from fedmd.report.scores import threshold_note
from fedmd.report.table import Estimate, Row
from fedmd.types import Json

MOST_POINTS = 30_000  # clients times rounds; beyond, only the clients that were suspected most
MOST_SAMPLES = 6_000  # in one page; of more, those with the highest scores of every client and round
DIGITS = 4
SHOWN, MOST_CLIENTS = 20, 300  # in the table: in sight, and with those that are folded away


def client_blocks(run: Run) -> list[Block]:
    """A table in which who is suspected most comes first, and a client to choose."""
    clients, inside = run.clients, run.quarantined
    if not len(clients):
        return []
    clients["flagged"] = (clients["corrected_share"] + clients["rejected_share"]).fillna(0.0)
    clients["inside"] = [client in inside for client in clients.index]
    clients = clients.sort_values(["inside", "flagged", "refused", "mean_score"], ascending=False, kind="stable")
    rows: list[Row] = [
        {
            "client": f"{client} ▲" if row.malicious else str(client),
            "flagged (%)": Estimate(row.flagged, None, 100, 1),
            "quarantine": f"since round {inside[client]}" if client in inside else "",
            "corrected (%)": Estimate(_known(row.corrected_share), None, 100, 1),
            "rejected (%)": Estimate(_known(row.rejected_share), None, 100, 1),
            f"mean {run.detector.lower()}": Estimate(_known(row.mean_score)),
            "samples": Estimate(row.samples, digits=0),
            "refused": Estimate(row.refused, digits=0),
        }
        for client, row in zip(clients.index, clients.itertuples(), strict=True)
    ]
    caption = "Most suspected first: in quarantine, then by the share of their samples that was corrected or rejected"
    if run.truth.malicious_clients:  # of a simulation, when it has ended; until then nobody tells
        caption += ". ▲ malicious"
    blocks: list[Block] = [Table.of(rows[:SHOWN], caption)]
    if rest := rows[SHOWN:MOST_CLIENTS]:
        of_all = f" of {len(rows) - SHOWN}" if len(rows) > MOST_CLIENTS else ""
        blocks.append(Table.of(rest, "The next", folded=f"{len(rest)}{of_all} more clients"))
    return [*blocks, *follow_blocks(run)]


def _known(value: float) -> float | None:
    return None if value != value else value


def follow_blocks(run: Run) -> list[Block]:
    """All clients that fit; nothing where nothing was judged."""
    verdicts = run.verdicts
    if not len(verdicts) or not run.metrics:
        return []
    rounds = [row["round"] for row in run.metrics]
    flagged = verdicts.assign(flagged=verdicts["action"] != "accepted")
    by_client = flagged.groupby("client")
    order = by_client["flagged"].mean().sort_values(ascending=False, kind="stable").index
    shown = sorted(order[: max(1, MOST_POINTS // len(rounds))])
    flagged = flagged[flagged["client"].isin(shown)]
    refusals: dict[int, dict[str, str]] = {}
    for row in run.metrics:
        for entry in row["rejections"]:
            refusals.setdefault(entry["client"], {})[str(row["round"])] = entry["reason"][:200]
    measured = flagged[np.isfinite(flagged["before"])]
    means = measured.pivot_table(index="client", columns="round", values="before").reindex(shown, columns=rounds)
    shares = flagged.pivot_table(index="client", columns="round", values="flagged").reindex(shown, columns=rounds)
    samples, complete = _samples(flagged)
    data: Json = {
        "score": run.score.with_unit,
        "rounds": rounds,
        "phases": [row["phase"] for row in run.metrics],
        "threshold": [_short(row["threshold"]) for row in run.metrics],
        "clients": {
            str(client): {
                "mean": [_short(value) for value in means.loc[client]],
                "flagged": [_short(value) for value in shares.loc[client]],
                "refused": refusals.get(client, {}),
                "malicious": client in run.truth.malicious_clients,
            }
            for client in shown
        },
        "samples": samples,
        "poisoned": list(run.truth.poisoned_rounds),
        "poisoned_samples": run.truth.poisoned_samples,
    }
    told = "Choose a client, here or by a click on its row in the heat map, and a round, here or by a click on its dot."
    if not complete:
        told += " Of so many samples only those with the highest scores are in this page."
    if len(shown) < len(order):
        told += f" {len(shown)} of {len(order)} clients are here, those whose samples were flagged most."
    return [Follow("Follow a client", f"{told}{threshold_note(run.stopping)}", data)]


def _samples(verdicts: pd.DataFrame) -> tuple[Json, bool]:
    """[index, label, before, after, steps, action] of each sample, by client and round; whether all are there."""
    per_group = len(verdicts)
    groups = max(1, verdicts.groupby(["client", "round"]).ngroups)
    complete = len(verdicts) <= MOST_SAMPLES
    if not complete:
        per_group = MOST_SAMPLES // groups
        ranked = verdicts.sort_values("before", ascending=False, kind="stable")
        verdicts = ranked.groupby(["client", "round"]).head(per_group).sort_index()
    found: Json = {}
    for row in verdicts.itertuples():
        sample = [row.index, row.label, _short(row.before), _short(row.after), row.steps, row.action]
        found.setdefault(str(row.client), {}).setdefault(str(row.round), []).append(sample)
    return found, complete


def _short(value: float | None) -> float | None:
    """With as many digits as anybody reads; None where it is not finite."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.{DIGITS}g}")
