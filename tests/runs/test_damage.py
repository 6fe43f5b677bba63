"""A run that goes on from damaged or missing files says so before its first round; it never makes up other numbers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from fedmd.audit.reader import Intact, read_live, trail_files, verify
from fedmd.audit.trail import AuditTrail
from fedmd.cli.main import main
from fedmd.config import RunConfig
from fedmd.flower.client.app import app
from fedmd.report.files import METRICS
from fedmd.rounds.checkpoint import CHECKPOINT
from fedmd.rounds.folder import noted_config
from fedmd.runs.compose import compose
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.types import RoundReport

KILLED_AFTER = 3
SMALL = [
    "data=digits", "model=cnn", "model.width=2", "data.splits.burn_in=60", "data.splits.trusted=20",
    "data.splits.attacker=20", "data.splits.test=40", "training.burn_in.epochs=1", "attack=none",
    "federation.clients=3", "stream.batch_size=4", "stream.clean_rounds=4", "stream.accumulative_rounds=0",
    "stream.trigger_rounds=0", "stream.recovery_rounds=0", "runtime.device=cpu", "runtime.threads=1",
    "runtime.engine=inline",
    "defense=dsc",
]  # fmt: skip


class Killed(Exception):
    """Instead of SIGKILL."""


def federate(config: RunConfig, folder: Path, on_round: Callable[..., None], *, resume: bool) -> None:
    with server_identity():
        serve(InlineGrid(app, config.federation.node_count), config, folder, on_round, resume=resume)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed; its metrics go on for a round after the checkpoint."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    config = compose([*SMALL, f"hydra.run.dir={folder}", f"runtime.cache_dir={folder.parent}"]).config

    def stop(config: RunConfig, report: RoundReport) -> None:
        if report.round + 1 == KILLED_AFTER:
            raise Killed

    with pytest.raises(Killed):
        federate(config, folder, stop, resume=False)
    return folder


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def resumed(folder: Path) -> list[int]:
    """The rounds that the run in `folder` takes when it goes on."""
    rounds: list[int] = []
    federate(noted_config(folder), folder, lambda config, report: rounds.append(report.round), resume=True)
    return rounds


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def assert_refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """`fedmd run resume=` ends with exit code 2 and one sentence, and no round was taken."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["run", f"resume={folder}"])
    printed = capsys.readouterr()
    assert end.value.code == 2 and "round" not in printed.out
    assert printed.err.startswith("fedmd: resume: ") and printed.err.count("\n") == 1
    assert all(word in printed.err for word in words), printed.err


def test_a_run_in_peace_goes_on_and_notes_its_trails_head(run: Path) -> None:
    heads = []
    with server_identity():
        config = noted_config(run)
        grid = InlineGrid(app, config.federation.node_count)
        summary = serve(grid, config, run, lambda config, report: heads.append(report.audit_head), resume=True)
    found = verify(run / "audit")
    assert isinstance(found, Intact) and len(heads) == 2
    assert summary["audit_head"] == {"seq": found.head.seq, "hash": found.head.hash}
    assert heads[-1] == (found.head.seq, found.head.hash) != heads[0]


def test_a_flipped_byte_of_a_tensor_in_the_checkpoint_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run / CHECKPOINT, -5)
    assert_refused(run, capsys, CHECKPOINT, "SHA-256")


def test_a_changed_number_in_the_checkpoints_tree_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (run / CHECKPOINT).read_bytes()
    with safe_open(run / CHECKPOINT, framework="pt") as stored:
        assert json.loads(stored.metadata()["fedmd"].partition(" ")[2])["metadata"]["tree"]["done"] == 2
    (run / CHECKPOINT).write_bytes(content.replace(rb"\"done\": 2", rb"\"done\": 1"))
    assert (run / CHECKPOINT).read_bytes() != content
    assert_refused(run, capsys, CHECKPOINT, "SHA-256")


def test_a_lost_checkpoint_is_said_and_recorded(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (run / CHECKPOINT).unlink()
    assert resumed(run) == [0, 1, 2, 3]
    said = [line for line in capsys.readouterr().out.splitlines() if "begins again with round 0" in line]
    assert len(said) == 1 and str(run) in said[0]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == said
    started = [record.entry for record in read_live(run / "audit") if record.entry.kind == "run"]
    assert len(started) == 1 and started[0].reason is not None and "checkpoint" in started[0].reason


def test_a_run_that_had_no_rounds_yet_begins_without_a_word(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for path in (run / "audit", run / "verdicts"):
        shutil.rmtree(path)
    for path in (run / CHECKPOINT, run / METRICS):
        path.unlink()
    assert resumed(run) == [0, 1, 2, 3]
    assert "again" not in capsys.readouterr().out and not caplog.records


def test_a_missing_trail_is_not_replaced_by_an_empty_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "audit")
    assert_refused(run, capsys, "audit", "trail")
    assert not trail_files(run / "audit")
    with pytest.raises(SystemExit) as end:
        main(["audit", str(run), "--verify"])
    assert end.value.code == 1
    assert capsys.readouterr().out.startswith("BROKEN: the run has begun, but its trail is missing")


def test_a_trail_without_records_of_a_run_with_rounds_is_broken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "audit")
    with AuditTrail(run / "audit"):
        pass
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["audit", str(run), "--verify"])
    assert end.value.code == 1 and "no records" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["a digit", "a line less"])
def test_damaged_metrics_are_found_before_the_first_round(
    run: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    text = (run / METRICS).read_bytes()
    changed = text.replace(b'"samples": 12', b'"samples": 13', 1) if damage == "a digit" else text.split(b"\n", 2)[2]
    assert changed != text
    (run / METRICS).write_bytes(changed)
    assert_refused(run, capsys, METRICS)


def test_a_damaged_verdict_part_is_found_before_the_first_round(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = sorted((run / "verdicts").iterdir())[1]
    flip(part, part.stat().st_size // 2)
    assert_refused(run, capsys, "verdicts")


def test_lost_metrics_are_found_before_the_first_round(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / METRICS).unlink()
    assert_refused(run, capsys, METRICS)


def test_a_damaged_burn_in_cache_is_trained_again(run: Path) -> None:
    (cache,) = Path(str(noted_config(run).runtime.cache_dir)).glob("burn-in-*.safetensors")
    before = cache.read_bytes()
    flip(cache, -9)
    assert resumed(run) == [2, 3]  # with the model it began with: anything else would be refused
    assert cache.read_bytes() == before
