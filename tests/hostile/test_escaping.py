"""Text that a client makes up, wherever people or their tools read it: the log, the terminal, CSV, the report."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

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
TEXTS = {
    "an escape sequence": "\x1b[2J\x1b]0;owned\x07",
    "a line of the log": "x\r\n2026-01-01 WARNING fedmd all is well",
    "a formula": '=HYPERLINK("http://evil","x")',
    "another formula": "@SUM(1+1)*cmd|' /C calc'!A0",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "text turned round": "\u202etxt.exe",
    "a zero byte": "a\0b",
    "a column more": 'a","b\n1,2',
    "a hundred thousand characters": "W" * 10**5,
}


class Babbling(InlineGrid):
    """Node 2's answers are errors, or have records and headers, of this `text`."""

    text = ""

    def pull_messages(self, message_ids: Any) -> list[Message]:
        """What the others say stays."""
        return [self.babbled(reply) for reply in super().pull_messages(message_ids)]

    def babbled(self, reply: Message) -> Message:
        """As the `round` has it: an error, odd records, an odd header."""
        if reply.metadata.src_node_id != 2 or reply.metadata.message_type == INFO:
            return reply
        turn = int(reply.metadata.group_id) % 4
        content = RecordDict(
            {HEADER: ConfigRecord({"protocol": 1, "round": int(reply.metadata.group_id), "clients": [1]})}
        )
        if turn == 1:
            content[self.text or "x"] = ConfigRecord({self.text: self.text})
        elif turn == 2:
            content[HEADER] = ConfigRecord({"protocol": self.text, "round": self.text})
        elif turn == 3:
            content = RecordDict({HEADER: ConfigRecord({"protocol": 1, "round": self.text, self.text: 1})})
        told = Error(7, self.text) if turn == 0 else content
        asked = Message(RecordDict(), 2, "train.stream")
        asked.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
        answer = Message(told, reply_to=asked)
        answer.metadata.__dict__["_src_node_id"] = 2
        return answer


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_client_writes_is_harmless_where_it_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    reports: list[RoundReport] = []
    folder = tmp_path / "run"
    config = compose([*SMALL, f"hydra.run.dir={folder}", f"runtime.cache_dir={cache}"]).config
    grid = Babbling(app, config.federation.node_count)
    grid.text = TEXTS[name]
    with server_identity():
        serve(grid, config, folder, lambda _, report: reports.append(report))
    refused = [item for report in reports for item in report.rejections]
    assert len(refused) == 4 and {item.client for item in refused} == {1}  # every round's, and nobody else's

    for report in reports:  # the terminal, and the log for machines
        assert round_line(report, 4).isprintable() and len(round_line(report, 4)) < 1500
        assert round_json(round_metrics(report)).isprintable()
    for record in caplog.records:
        assert record.getMessage().isprintable() and "\n" not in JsonFormatter().format(record)
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["rejections"]

    for arguments in ([], ["--client", "1"], ["--export", "csv"]):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["audit", str(folder), *arguments])
        assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    with (folder / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({len(row) for row in rows}) == 1 and sum(bool(row["reason"]) for row in rows) >= 4
    cells = [value for row in rows for value in row.values() if value]
    assert not [cell for cell in cells if cell.startswith(FORMULAS) or not cell.isprintable()]

    page = write_report(folder).read_text()
    assert "<script>alert" not in page and "<img src=x" not in page


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Burn-in is trained once."""
    logging.getLogger("fedmd").setLevel(logging.INFO)
    return tmp_path_factory.mktemp("cache")
