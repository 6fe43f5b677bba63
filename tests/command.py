"""`fedmd` as it is typed: in this process, or in a session of its own that can be interrupted and killed."""

import contextlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fedmd.cli.main import main

FEDMD = Path(sys.executable).parent / "fedmd"


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def fedmd(*arguments: str, cwd: Path) -> Done:
    """`fedmd arguments...` in this process, from the folder `cwd`: without the seconds that imports take."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = end.code or 0
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def session(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`fedmd arguments...` in a session of its own, of which nothing may be left once it has ended."""
    process = subprocess.Popen(
        [FEDMD, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's `&` has it ignored
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
        wait_for(lambda: not of_session(process.pid), 200)


def of_session(session: int) -> dict[int, str]:
    """The living processes of a session, by id, with what they are."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text().replace("\0", " ")
    return found


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """What `condition` says once that is something."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)
    return found
