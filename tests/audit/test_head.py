"""Who noted a trail's head, or has its public key, finds a cut tail and a rewritten chain."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmd.audit.chain import GENESIS, Position, canonical, link
from fedmd.audit.entries import Entry
from fedmd.audit.reader import Intact, trail_files, verify
from fedmd.audit.trail import FOLDER, open_trail
from fedmd.cli import main as cli
from fedmd.config import AuditConfig
from tests.runs.test_damage import SMALL

Verify = Callable[..., tuple[int, str]]


def message(client: int) -> Entry:
    return Entry("message", "accepted", round=client, client=client)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path / "mine", Ed25519PrivateKey.generate())


def write_keys(stem: Path, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private, public = stem.with_suffix(".key"), stem.with_suffix(".pub")
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Verify:
    """Exit code of `fedmd audit RUN --verify ...`, and what it printed."""

    def call(run: Path, *options: object) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["audit", str(run), *map(str, options)])
        printed = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, printed.out + printed.err

    return call


def written(run: Path, count: int = 4, config: AuditConfig | None = None) -> Position:
    with open_trail(run, config or AuditConfig()) as trail:
        for client in range(count):
            trail.append([message(client), message(client + 10)])
        return trail.position


def text(head: Position) -> str:
    return f"{head.seq}:{head.hash}"


def rewrite(file: Path, change: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> None:
    """What the owner of the disk can do: other records, and every hash anew."""
    with sqlite3.connect(file) as database:
        triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        bodies = [json.loads(body) for (body,) in database.execute("SELECT body FROM records ORDER BY seq")]
        database.execute("DELETE FROM records")
        last = GENESIS
        for body in change(bodies):
            last = link(last, canonical(body).encode())
            database.execute("INSERT INTO records VALUES (?, ?, ?)", (body["seq"], canonical(body), last))
        database.execute("UPDATE head SET seq = (SELECT max(seq) FROM records), hash = ?", (last,))
        for _, sql in triggers:
            database.execute(sql)
    database.close()


def lie(bodies: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**body, "action": "rejected"} if body["seq"] == 1 else body for body in bodies]


def test_a_noted_head_is_found_again_also_when_the_trail_went_on(tmp_path: Path, audit: Verify) -> None:
    head = written(tmp_path)
    assert audit(tmp_path, "--verify", "--head", text(head))[0] == 0
    assert text(head) in audit(tmp_path, "--verify")[1]
    written(tmp_path)
    assert audit(tmp_path, "--verify", "--head", text(head))[0] == 0
    assert audit(tmp_path, "--verify", "--head", text(Position()))[0] == 0


def test_a_cut_tail_shows_where_the_head_was_noted(tmp_path: Path, audit: Verify) -> None:
    head = written(tmp_path)
    rewrite(trail_files(tmp_path / FOLDER)[0], lambda bodies: bodies[:-1])
    assert isinstance(verify(tmp_path / FOLDER), Intact)  # nothing in the file tells
    code, told = audit(tmp_path, "--verify", "--head", text(head))
    assert code == 1 and told.startswith("BROKEN: the trail ends with record 7, before the noted head 8")


def test_a_rewritten_chain_shows_where_the_head_was_noted(tmp_path: Path, audit: Verify) -> None:
    head = written(tmp_path)
    rewrite(trail_files(tmp_path / FOLDER)[0], lie)
    assert isinstance(verify(tmp_path / FOLDER), Intact)
    code, told = audit(tmp_path, "--verify", "--head", text(head))
    assert code == 1 and told.startswith("BROKEN: record 8 has another hash")


def test_the_head_in_the_summary_is_held_against_the_trail(tmp_path: Path, audit: Verify) -> None:
    head = written(tmp_path)
    summary = {"detection": {}, "wall_s": {}, "audit_head": {"seq": head.seq, "hash": head.hash}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert audit(tmp_path, "--verify")[0] == 0
    rewrite(trail_files(tmp_path / FOLDER)[0], lambda bodies: bodies[:-1])
    assert audit(tmp_path, "--verify")[0] == 1


def test_a_finished_run_says_its_head_on_the_terminal_and_in_the_log(
    tmp_path: Path, audit: Verify, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [f"hydra.run.dir={tmp_path / 'run'}", f"runtime.cache_dir={tmp_path}"]
    with pytest.raises(SystemExit) as end:
        cli.main(["run", *SMALL, "observability.json_logs=true", *place])
    assert end.value.code == 0
    printed = capsys.readouterr()
    (said,) = re.findall(r"^audit head: (.*)$", printed.out, re.M)
    logged = [json.loads(line)["message"] for line in printed.err.splitlines() if line.startswith("{")]
    assert f"audit head {said}" in logged
    assert audit(tmp_path / "run", "--verify", "--head", said)[0] == 0
    head = json.loads((tmp_path / "run" / "summary.json").read_text())["audit_head"]
    assert said == f"{head['seq']}:{head['hash']}"


def test_heads_before_and_behind_archived_files(tmp_path: Path, audit: Verify) -> None:
    heads = []
    with open_trail(tmp_path, AuditConfig()) as trail:
        trail._rotate_bytes = 0
        for client in range(4):
            trail.append([message(client)])
            heads.append(trail.position)
    files = trail_files(tmp_path / FOLDER)
    for file in files[:3]:
        file.unlink()
    assert audit(tmp_path, "--verify", "--head", text(heads[-1]))[0] == 0
    assert audit(tmp_path, "--verify", "--head", text(heads[1]))[0] == 0  # the place just before the first file left
    code, told = audit(tmp_path, "--verify", "--head", text(Position(heads[1].seq, "0" * 64)))
    assert code == 1 and "another hash" in told
    code, told = audit(tmp_path, "--verify", "--head", text(heads[0]))
    assert code == 2 and "kept elsewhere" in told


@pytest.mark.parametrize("options", [["--head", "3"], ["--head", "x:" + "0" * 64], ["--head", "1:" + "G" * 64]])
def test_a_head_that_is_none_is_one_sentence(tmp_path: Path, audit: Verify, options: list[str]) -> None:
    written(tmp_path)
    code, told = audit(tmp_path, "--verify", *options)
    assert code == 2 and "takes N:HASH" in told and told.count("\n") == 1
    assert audit(tmp_path, *options[:1], text(Position()))[0] == 2  # without --verify


# -- signatures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotate_bytes", [2**28, 0])
def test_a_signed_trail_is_intact_for_who_has_the_public_key(
    tmp_path: Path, audit: Verify, keys: tuple[Path, Path], rotate_bytes: int
) -> None:
    config = AuditConfig(key_file=str(keys[0]))
    with open_trail(tmp_path, config) as trail:
        trail._rotate_bytes = rotate_bytes
        for client in range(3):
            trail.append([message(client)])
    assert audit(tmp_path, "--verify", "--public-key", keys[1])[0] == 0
    if rotate_bytes == 0:
        trail_files(tmp_path / FOLDER)[0].unlink()
        assert audit(tmp_path, "--verify", "--public-key", keys[1])[0] == 0


def test_a_rewritten_chain_shows_where_the_key_is_kept(tmp_path: Path, audit: Verify, keys: tuple[Path, Path]) -> None:
    written(tmp_path, config=AuditConfig(key_file=str(keys[0])))
    rewrite(trail_files(tmp_path / FOLDER)[0], lie)
    assert audit(tmp_path, "--verify")[0] == 0
    code, told = audit(tmp_path, "--verify", "--public-key", keys[1])
    assert code == 1 and told.startswith("BROKEN: record 3 is no signature of this key")


def test_another_key_and_none_at_all_show(tmp_path: Path, audit: Verify, keys: tuple[Path, Path]) -> None:
    other = write_keys(tmp_path / "other", Ed25519PrivateKey.generate())
    written(tmp_path, config=AuditConfig(key_file=str(other[0])))
    assert audit(tmp_path, "--verify", "--public-key", keys[1])[0] == 1
    assert audit(tmp_path, "--verify", "--public-key", other[1])[0] == 0
    written(tmp_path, 1)  # goes on without a key
    code, told = audit(tmp_path, "--verify", "--public-key", other[1])
    assert code == 1 and "not followed by a signature" in told


def test_keys_that_are_none_are_one_sentence(tmp_path: Path, audit: Verify, keys: tuple[Path, Path]) -> None:
    foreign = write_keys(tmp_path / "ec", ec.generate_private_key(ec.SECP256R1()))
    written(tmp_path)
    for file in (tmp_path / "none", keys[0], foreign[1]):
        code, told = audit(tmp_path, "--verify", "--public-key", file)
        assert code == 2 and "--public-key: " in told and told.count("\n") == 1


@pytest.mark.parametrize("body", ["[]", "7", "null", "[" * 10**5])
def test_odd_bodies_with_right_hashes_are_broken(tmp_path: Path, audit: Verify, body: str) -> None:
    written(tmp_path)
    file = trail_files(tmp_path / FOLDER)[0]
    with sqlite3.connect(file) as database:
        (previous,) = database.execute("SELECT hash FROM records WHERE seq = 8").fetchone()
        digest = link(previous, body.encode())
        database.execute("INSERT INTO records VALUES (9, ?, ?)", (body, digest))
        database.execute("UPDATE head SET seq = 9, hash = ?", (digest,))
    database.close()
    code, told = audit(tmp_path, "--verify")
    assert code == 1 and told.startswith("BROKEN at record 9")
