"""Cells in processes of this machine: each is forked from one that has imported all that a run needs.

That one is no fork of the process that called, whose threads, autograd and CUDA would not survive it. It computes
nothing, and can be started while its caller still imports the same (`start_early`). Then the first cells begin at once.
"""

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from signal import SIG_DFL, SIG_IGN, SIGCHLD, SIGINT, SIGTERM, signal
from subprocess import TimeoutExpired
from threading import Thread
from typing import TYPE_CHECKING, NoReturn, cast

from fedmd.runs.cell import Cell
from fedmd.runs.ledger import Broken

if TYPE_CHECKING:  # slow to import
    from fedmd.runs.cells import Event

_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from fedmd.runs.processes import serve_forks; serve_forks(sys.argv[1])"
_GONE_S = 10.0  # within which a process that nobody listens to any more has ended
_early: "Forks | None" = None


def can_fork() -> bool:
    """Whether this system's libraries may be forked once they are imported; elsewhere cells are computed on Ray."""
    return sys.platform == "linux"


class Forks:
    """A process that forks others, one a call; each computes what cell it is sent, and sends what happens."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            # With the path as it is here: a script's folder, or what a notebook has added, may hold a net.
            self._process = subprocess.Popen([sys.executable, "-c", _MAIN, str(fd), *sys.path], pass_fds=[fd])
        self._socket = ours

    def compute(self, cell: Cell) -> Connection:
        """What a new process says of `cell`; its end, without a last event, where there is or will be none."""
        ours, theirs = Pipe()
        with theirs, suppress(OSError):  # the process that forks is gone: nobody will answer
            socket.send_fds(self._socket, [b"1"], [theirs.fileno()])
        with suppress(OSError):
            ours.send(cell)
        return ours

    def close(self) -> None:
        """Fork no more. In the background it is waited for, and so are those it forked: their CPU time is ours then."""
        self._socket.close()
        Thread(target=self._wait, name="forks").start()

    def kill(self) -> None:
        """End at once what has forked nothing yet."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        try:
            self._process.wait(_GONE_S)
        except TimeoutExpired:
            self.kill()


class InProcesses:
    """See `Places`: `most` processes of this machine at once."""

    def __init__(self, forks: Forks, most: int) -> None:
        self._forks = forks
        self._most = most
        self._started: set[Connection] = set()

    def room(self) -> int:
        """Always the same."""
        return self._most

    def start(self, cell: Cell) -> Hashable:
        """A process of its own."""
        events = self._forks.compute(cell)
        self._started.add(events)
        return events

    def wait(self, started: Collection[Hashable], seconds: float) -> list[tuple[Hashable, "Event"]]:
        """See `Places`."""
        return [(events, self._next(events)) for events in cast("list[Connection]", wait(self._started, seconds))]

    def close(self) -> None:
        """End what is still being computed: each process goes by its connection."""
        for events in self._started:
            events.close()

    def _next(self, events: Connection) -> "Event":
        from fedmd.runs.cells import Finished

        try:
            event: Event = events.recv()
        except (EOFError, OSError):
            event = Broken("its process ended without a word; the system kills what needs more memory than there is")
        if isinstance(event, Finished | Broken):
            self._started.discard(events)
            events.close()
        return event


def start_early() -> None:
    """Have a process import what runs need, meanwhile: the next `in_processes` of this process takes it."""
    global _early
    if _early is None and can_fork():
        _early = Forks()


def not_needed() -> None:
    """End what was started early."""
    global _early
    if _early is not None:
        _early.kill()
        _early = None


@contextmanager
def in_processes(most: int) -> Iterator[InProcesses]:
    """Room for `most` cells at once on this machine. What is still being computed at the end of the block is ended."""
    global _early
    forks, _early = _early or Forks(), None
    places = InProcesses(forks, most)
    try:
        yield places
    finally:
        places.close()
        forks.close()


def serve_forks(fd: str) -> None:
    """What the process that forks does, until who started it closes the connection or is gone."""
    for number in (SIGINT, SIGTERM):  # a terminal's and a supervisor's go to all processes: the first one decides
        signal(number, SIG_IGN)
    signal(SIGCHLD, _reap)
    gc.disable()
    import fedmd.runs.simulation  # noqa: F401  slow, which is why

    gc.freeze()  # pages that nobody writes to stay shared
    with socket.socket(fileno=int(fd)) as requests:
        while True:
            asked, fds, _, _ = socket.recv_fds(requests, 1, 1)
            if not asked:
                break
            if os.fork() == 0:
                requests.close()
                _compute(Connection(fds[0]))
            os.close(fds[0])
    _reap(options=0)


def _reap(*interrupt: object, options: int = os.WNOHANG) -> None:
    """Take note of children that have ended, of all if `options` is 0: the system adds their CPU time to ours then."""
    with suppress(ChildProcessError):  # there are no more
        while os.waitpid(-1, options)[0]:
            pass


def _compute(events: Connection) -> NoReturn:
    """In the child: the cell that comes, and out; also where nobody listens any more."""
    from fedmd.runs.cells import computed

    gc.enable()
    signal(SIGCHLD, SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)  # whatever it prints; the parent may be drawing on the terminal
    for standard in range(3):
        os.dup2(nowhere, standard)
    code = 1
    try:
        cell = events.recv()
        Thread(target=_end_with, args=(events,), daemon=True).start()
        for event in computed(cell):
            events.send(event)
        code = 0
    finally:
        os._exit(code)


def _end_with(events: Connection) -> NoReturn:
    """Whoever listens is gone: so is the cell, at once, and what it has in shared memory."""
    from fedmd.flower.wire.model_exchange import discard_shared_memory

    with suppress(EOFError, OSError):
        events.recv()
    discard_shared_memory()
    os._exit(1)
