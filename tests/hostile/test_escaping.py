"""Text that a client makes up, wherever people or their tools read it: the log, the terminal, CSV, the report."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedmd.audit.entries import Entry
from fedmd.audit.reader import Record
from fedmd.audit.tables import write_csv
from fedmd.cli.main import main
from fedmd.flower.client.app import app
from fedmd.flower.wire.header import HEADER, INFO
from fedmd.report.html.write import write_report
from fedmd.report.monitoring.logs import JsonFormatter, round_json, round_line
from fedmd.report.recorder import round_metrics
from fedmd.runs.compose import compose
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.types import RoundReport
from tests.runs.test_damage import SMALL

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
TEXTS = [
    "\x1b[2J\x1b]0;owned\x07",
    "x\r\n2026-01-01 WARNING fedmd all is well",
    '=HYPERLINK("http://evil","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "\u202etxt.exe",
    "a\0b",
    'a","b\n1,2',
    "W" * 10**5,
]


class Babbling(InlineGrid):
    """Node 2's answers are errors, or have records and headers, of one of TEXTS, four rounds of each."""

    def pull_messages(self, message_ids: Any) -> list[Message]:
        """What the others say stays."""
        return [self.babbled(reply) for reply in super().pull_messages(message_ids)]

    def babbled(self, reply: Message) -> Message:
        """As the round has it: an error, odd records, an odd header."""
        if reply.metadata.src_node_id != 2 or reply.metadata.message_type == INFO:
            return reply
        number, turn = divmod(int(reply.metadata.group_id), 4)
        text = TEXTS[number]
        content = RecordDict(
            {HEADER: ConfigRecord({"protocol": 1, "round": int(reply.metadata.group_id), "clients": [1]})}
        )
        if turn == 1:
            content[text] = ConfigRecord({text: text})
        elif turn == 2:
            content[HEADER] = ConfigRecord({"protocol": text, "round": text})
        elif turn == 3:
            content = RecordDict({HEADER: ConfigRecord({"protocol": 1, "round": text, text: 1})})
        told = Error(7, text) if turn == 0 else content
        asked = Message(RecordDict(), 2, "train.stream")
        asked.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
        answer = Message(told, reply_to=asked)
        answer.metadata.__dict__["_src_node_id"] = 2
        return answer


def test_what_a_client_writes_is_harmless_where_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[RoundReport] = []
    folder, rounds = tmp_path / "run", 4 * len(TEXTS)
    small = [setting for setting in SMALL if not setting.startswith("stream.clean_rounds")]
    settings = [*small, f"stream.clean_rounds={rounds}", f"runtime.cache_dir={tmp_path}"]
    config = compose([*settings, f"hydra.run.dir={folder}"]).config
    grid = Babbling(app, config.federation.node_count)
    with server_identity():
        serve(grid, config, folder, lambda _, report: reports.append(report))
    refused = [item for report in reports for item in report.rejections]
    assert len(refused) == rounds and {item.client for item in refused} == {1}  # every round's, and nobody else's

    for report in reports:  # the terminal, and the log for machines
        assert round_line(report, rounds).isprintable() and len(round_line(report, rounds)) < 1500
        assert round_json(round_metrics(report)).isprintable()
    for record in caplog.records:
        assert record.getMessage().isprintable() and "\n" not in JsonFormatter().format(record)
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["rejections"]

    for command, *more in (["audit"], ["audit", "--client", "1"], ["audit", "--export", "csv"], ["status"]):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([command, str(folder), *more])
        shown = capsys.readouterr().out.splitlines()
        assert shown and all(line.isprintable() for line in shown)
    with (folder / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({len(row) for row in rows}) == 1 and sum(bool(row["reason"]) for row in rows) >= rounds
    cells = [value for row in rows for value in row.values() if value]
    assert not [cell for cell in cells if cell.startswith(FORMULAS) or not cell.isprintable()]

    page = write_report(folder).read_text()
    assert "<script>alert" not in page and "<img src=x" not in page


@pytest.mark.parametrize(
    ("start", "shown"), [*((sign, f"'{sign}") for sign in "=+-@"), ("\t", "?"), ("\r", "?"), ("\n", "?")]
)
def test_a_cell_is_neither_a_formula_nor_two_lines(tmp_path: Path, start: str, shown: str) -> None:
    """Whatever stands in a trail; what the wire lets in is printable."""
    entry = Entry("message", "rejected", round=0, client=1, reason=f"{start}1+1")
    write_csv([Record(1, 0.0, entry, "00")], tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == [f"{shown}1+1"]
