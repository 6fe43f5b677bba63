"""Processes that do not outlive their owner: what is started in the block, and all that it starts, ends with it."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_MARK = "FEDMD_PROCESSES"
_GRACE_S = 8.0
_TAIL_CHARACTERS = 2000


class ProcessError(RuntimeError):
    """A process failed or did not get ready in time; the message ends with what it said last."""


class Processes:
    """Background processes with a log file each.

    Flower's processes start others in sessions of their own, so process groups are not enough: every process inherits
    a secret mark in its environment, and whoever carries it is ended at the end (where there is a /proc; elsewhere
    the groups, and Flower's own watch on its parent, must do).
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.logs = logs
        self._mark = secrets.token_hex(16)
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        self._environment = {**os.environ, "PATH": path, **environment, _MARK: self._mark}

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def start(self, name: str, command: Sequence[str], **environment: str) -> None:
        """Start `command` in the background; what it says goes to `logs`/name.log. One of that name is ended first."""
        if name in self._started:
            self.stop(name)
        with self._log(name).open("ab") as log:
            self._started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, **environment},
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others in order
            )

    def run(self, command: Sequence[str], *, timeout_s: float) -> str:
        """What `command` prints. Raises ProcessError when it fails or takes longer than `timeout_s`."""
        done = self.attempt(command, timeout_s=timeout_s)
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-_TAIL_CHARACTERS:]
            raise ProcessError(f"{' '.join(command[:4])} failed with code {done.returncode}:\n{said}")
        return done.stdout

    def attempt(
        self, command: Sequence[str], *, timeout_s: float, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` to its end, whatever that is. Raises ProcessError when it takes longer than `timeout_s`."""
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**self._environment, **environment},
                timeout=timeout_s,
                text=True,
            )
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{' '.join(command[:4])} took longer than {timeout_s:g} s") from error

    def wait_for(self, what: str, ready: Callable[[], bool], *, timeout_s: float, needs: Sequence[str] = ()) -> None:
        """Poll `ready`. Raises ProcessError after `timeout_s`, or as soon as one of the processes `needs` has ended."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            for name in needs:
                if (code := self._started[name].poll()) is not None:
                    raise ProcessError(f"{name} ended with code {code} before {what}:\n{self.tail(name)}")
            if time.monotonic() > deadline:
                said = "".join(f"\n{name}: {self.tail(name)}" for name in needs)
                raise ProcessError(f"waited {timeout_s:g} s for {what}{said}")
            time.sleep(0.2)

    def exit_code(self, name: str) -> int | None:
        """The code a process ended with, None while it runs."""
        return self._started[name].poll()

    def kill(self, name: str) -> None:
        """SIGKILL for one process, as a crash would."""
        self._started[name].kill()
        self._started[name].wait()

    def stop(self, name: str) -> None:
        """Ask one process and those it started to end, and wait until they have."""
        _signal_group(self._started[name].pid, signal.SIGTERM)
        try:
            self._started[name].wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal_group(self._started[name].pid, signal.SIGKILL)
            self._started[name].wait()

    def tail(self, name: str) -> str:
        """The end of what a process said."""
        return self.said(name)[-_TAIL_CHARACTERS:]

    def said(self, name: str) -> str:
        """All that a process said; nothing before it was started."""
        try:
            return self._log(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def stop_all(self) -> None:
        """Ask everything to end, wait, then insist. Safe to call twice."""
        for process in self._started.values():
            if process.poll() is None:
                _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline and any(process.poll() is None for process in self._started.values()):
            time.sleep(0.1)
        for process in self._started.values():
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        while marked := self.left():
            for pid in marked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def left(self) -> list[int]:
        """Ids of living processes that carry the mark."""
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes().split(b"\0"):  # empty for a zombie, whose parent will collect it
                    found.append(int(environ.parent.name))
            except OSError:  # gone meanwhile, or somebody else's
                continue
        return found

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
