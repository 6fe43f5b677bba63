"""SIGTERM, as a container's stop sends it: the round under way ends, its checkpoint is written, the exit code is 143.

What goes on before the first round, or after the last one of a run, is not waited for: it is done anew when the run
goes on. Nor is anything when SIGTERM comes a second time.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGTERM
_asked, _in_rounds = threading.Event(), threading.Event()
_otherwise: Callable[[], None] | None = None  # what SIGTERM does outside rounds; None: it is not ours


class Stopped(SystemExit):
    """The process was asked to end. No failure of the run, which can be gone on with."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


@contextmanager
def stopping_on_sigterm(otherwise: Callable[[], None] | None = None) -> Iterator[None]:
    """While the block lasts, SIGTERM ends it by Stopped where `rounds` are under way.

    Everywhere else it does what `otherwise` says: by default, `leave`. The handler before is put back. Only a process's
    main thread has handlers; in another one, nothing happens.
    """
    global _otherwise
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _otherwise = otherwise or leave
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
        end_if_asked()
    finally:
        _otherwise = None
        signal.signal(signal.SIGTERM, before)
        _asked.clear()


def _stop(number: int, frame: FrameType | None) -> None:
    if (_asked.is_set() or not _in_rounds.is_set()) and _otherwise is not None:
        _otherwise()
    else:
        _asked.set()
        print("fedmd: asked to end: after this round", file=sys.stderr, flush=True)


@contextmanager
def rounds() -> Iterator[None]:
    """Inside, the process is only asked to end; the block does so where it can be gone on from: `is_asked`."""
    put_back()
    _in_rounds.set()
    try:
        yield
    finally:
        _in_rounds.clear()


def put_back() -> None:
    """Have SIGTERM again, where it was ours and Ray took it, as it does where it starts in the main thread."""
    if _otherwise is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)


def is_asked() -> bool:
    """Whether the process was asked to end."""
    return _asked.is_set()


def end_if_asked() -> None:
    """Raise Stopped where the process was asked to end."""
    if is_asked():
        raise Stopped


def leave() -> NoReturn:
    """End the process with EXIT_CODE and a line on how to go on.

    At once: an exception would have to get out of whatever the main thread is at, and the threads of others go on.
    """
    print("fedmd: ended; fedmd run resume=FOLDER goes on with a run, a study is started again", file=sys.stderr)
    if (exchange := sys.modules.get("fedmd.flower.wire.model_exchange")) is not None:  # slow to import
        exchange.discard_shared_memory()
    if sys.stdout.isatty():
        print("\033[?25h", end="")  # the cursor, which a live display hides
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_CODE)
