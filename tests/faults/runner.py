"""One tiny run, over and over, each time with a fault in another of its writes, and each time gone on with afterwards.

    LD_PRELOAD=shim.so python -m tests.faults.runner FOLDER RUN CASES

RUN: small, stream or update. CASES: every (each call, by each fault), kinds (the first and the last call of each kind),
or some of them with commas, such as "kill write checkpoint.safetensors,EIO fdatasync trail". Prints a JSON object a
line: the run left in peace, then each case. Everything is imported once, each run is a fork, and the report's figures,
which are drawn in memory, are left out.
"""

import contextlib
import ctypes
import errno
import hashlib
import importlib
import io
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from fedmd.audit.reader import Intact, read_live, verify
from fedmd.cli.main import main as fedmd
from fedmd.report.html import run_figures
from tests.golden.runs import RUNS
from tests.runs.test_damage import SMALL

SHIM: Any = ctypes.CDLL(None)
SHIM.fault_call.restype = ctypes.c_char_p
QUIET = ["runtime.engine=inline", "runtime.progress=false"]
UNUSED = ("stream.batch_size", "training.online")  # in mode=update, where the command line refuses them
SETTINGS = {
    "small": SMALL,
    "stream": [*RUNS["stream-quarantine"], *QUIET],
    "update": [*(said for said in RUNS["update-correct-quarantine"] if not said.startswith(UNUSED)), *QUIET],
}
FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "kill": -1}


def kind_of(call: str) -> str:
    """What a call does, whatever the numbers in its path: "fsync checkpoint.safetensors"."""
    name, _, path = call.partition(" ")
    path = re.sub(r"/\.tmp\w{6}$", "/safetensors' own file", path)
    path = re.sub(r"\.([^/]+)\.\d+\.[0-9a-f]{8}\.tmp$", r"\1", path)
    return f"{name} {re.sub(r'[0-9]+', 'N', path.removeprefix('/'))}"


def chosen(cases: str, calls: list[str]) -> list[tuple[str, int]]:
    """The faults, and which call each of them strikes."""
    kinds = [kind_of(call) for call in calls]
    if cases == "every":
        numbers = list(range(1, len(calls) + 1))
    elif cases == "kinds":
        last = {kind: number for number, kind in enumerate(kinds, 1)}
        first = {kind: number for number, kind in reversed(list(enumerate(kinds, 1)))}
        numbers = sorted({*first.values(), *last.values()})
    else:
        wanted = [case.split(" ", 1) for case in cases.split(",")]
        return [
            (fault, next(n for n, kind in enumerate(kinds, 1) if kind.startswith(start))) for fault, start in wanted
        ]
    return [(fault, number) for number in numbers for fault in FAULTS]


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """How a fork that does `work` ended (its exit code, or -9), and what that returned, as JSON."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        code = 70
        try:
            os.close(reading)
            found = work()
            os.write(writing, json.dumps(found).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), json.loads(told) if told else None


def command(*arguments: str) -> dict[str, Any]:
    """`fedmd` with these arguments: its exit code and what it printed on standard error."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            fedmd(list(arguments))
        except SystemExit as end:
            code = end.code
        except BaseException as error:  # what would be a traceback
            code = f"{type(error).__name__}: {error}"
    return {"code": code, "said": err.getvalue()}


def struck(folder: Path, number: int, fault: int, *arguments: str) -> dict[str, Any]:
    """`command` with the `number`-th call below `folder` struck by `fault`; and the calls there were."""
    SHIM.fault_arm(str(folder).encode(), number, fault)
    ended = command(*arguments)
    calls = [SHIM.fault_call(n).decode() for n in range(1, SHIM.fault_count() + 1)]
    SHIM.fault_arm(b"", 0, 0)
    return {**ended, "calls": calls}


def without_times(value: Any) -> Any:
    """`value` without what differs between two runs left in peace."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in ("wall_s", "audit_head")}
    return value


def result(folder: Path) -> dict[str, Any]:
    """What a finished run left, in a comparable form."""
    metrics = [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.glob("quarantine/*/*"))
    entries = [record.entry.body() for record in read_live(folder / "audit")]
    for body in entries:
        if body["kind"] == "run":
            body.pop("reason", None)  # why a run begins anew
    told = {
        "metrics": metrics,
        "summary": without_times(json.loads((folder / "summary.json").read_text())),
        "trail": entries,
        "kept": [[name, _sha(folder / name)] for name in kept],
        **{name: _sha(folder / name) for name in ("verdicts.parquet", "truth.json")},
    }
    assert isinstance(verify(folder / "audit"), Intact)
    return {"sha256": {key: hashlib.sha256(json.dumps(told[key]).encode()).hexdigest() for key in told}}


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def resumed(folder: Path, settings: list[str]) -> dict[str, Any]:
    """Go on with the run in `folder`; where it says in a sentence why not, start anew there."""
    first = command("run", f"resume={folder}")
    if first["code"] == 0:
        return {"resume": first, **result(folder)}
    again = command("run", *settings)
    return {"resume": first, "again": again, **(result(folder) if again["code"] == 0 else {})}


def case(place: Path, settings: list[str], fault: str, number: int, expected: dict[str, Any]) -> dict[str, Any]:
    """A run with that fault, and what it is once it has been gone on with."""
    folder = place / f"{fault}-{number}"
    settings = [*settings, f"hydra.run.dir={folder}"]
    code, ended = forked(lambda: struck(folder, number, FAULTS[fault], "run", *settings))
    _, after = forked(lambda: resumed(folder, settings))
    left = sorted(path.name for path in folder.rglob(".*") if ".tmp" in path.name)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "fault": fault,
        "number": number,
        "code": code if ended is None else ended["code"],
        "said": "" if ended is None else ended["said"],
        "resume": after and after["resume"],
        "again": after and after.get("again"),
        "same": after is not None and after.get("sha256") == expected["sha256"],
        "left": left,
    }


def imported_by(work: Callable[[], Any]) -> None:
    """Import what `work` imports, without its threads: by itself it would be imported in each fork anew."""

    def modules() -> list[str]:
        work()
        return sorted(sys.modules)

    for name in forked(modules)[1]:
        with contextlib.suppress(ImportError):  # some extensions are parts of others
            importlib.import_module(name)


def main(work: str, run: str, cases: str) -> None:
    """See the module."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    run_figures.inline_svg = lambda *_: Markup("<svg></svg>")  # half of a run's time, and nothing that could be struck
    place = Path(work)
    settings = [*SETTINGS[run], f"runtime.cache_dir={place / 'cache'}"]
    imported_by(lambda: command("run", *settings, f"hydra.run.dir={place / 'warm'}"))
    peaceful = place / "peace"
    _, peace = forked(lambda: struck(peaceful, 0, 0, "run", *settings, f"hydra.run.dir={peaceful}"))
    _, expected = forked(lambda: result(peaceful))
    print(json.dumps({"calls": len(peace["calls"]), "code": peace["code"], **expected}), flush=True)
    for fault, number in chosen(cases, peace["calls"]):
        found = case(place, settings, fault, number, expected)
        print(json.dumps({**found, "kind": kind_of(peace["calls"][number - 1])}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
