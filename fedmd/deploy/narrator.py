"""Tells whoever watches what a long command does, and that it still does it."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

QUIET_S = 4.0  # of silence before the step under way is named again


class Narrator:
    """Says steps and events with the seconds since the beginning, and is never silent for long."""

    def __init__(self, say: Callable[[str], None], quiet_s: float = QUIET_S) -> None:
        self.say = say
        self._quiet_s = quiet_s
        self._start = self._said = self._since = time.perf_counter()
        self._step = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._repeater = threading.Thread(target=self._repeat, name="narrator", daemon=True)

    def __enter__(self) -> Self:
        self._repeater.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._repeater.join()

    def begin(self, step: str) -> None:
        """Say what is under way from here on; it is said again wherever nothing else is."""
        with self._lock:
            self._step, self._since = step, time.perf_counter()
            self._line(f"{step} ...")

    def tell(self, event: str) -> None:
        """Say what has happened."""
        with self._lock:
            self._line(event)

    def _repeat(self) -> None:
        while not self._ended.wait(min(0.2, self._quiet_s)):
            with self._lock:
                now = time.perf_counter()
                if self._step and now - self._said >= self._quiet_s:
                    self._line(f"    ... {self._step}: {now - self._since:.0f} s so far")

    def _line(self, text: str) -> None:
        self._said = time.perf_counter()
        self.say(f"[{self._said - self._start:5.1f} s] {text}")
