"""Which worker is asked what, and what a lost worker costs: nothing but the answer of the client that was to blame.

A free worker is given a handful of messages: as many as their clients, going by the last ones, answer in no time, which
is one where clients have work to do. It comes back as soon as it has worked for that time, and what it had not begun is
for others.

Messages whose worker was lost are each asked once more, alone: nobody knows whose client it was, or whether it was one.
Who loses a worker alone is refused, so that no message is asked for a third time.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message

from fedmd.runs.inline import unusable

HANDFUL_S = 0.02  # what a handful is to take: long beside the time that it travels, short beside a round
_MOST = 64  # messages in a handful
_SHARES = 4  # a worker is given a quarter of its share at most, so that all have an end at the same time
_STARTS = 3  # workers in a row that may die before they have begun


@dataclass(frozen=True)
class Answered:
    """A worker's answers to the first messages of its handful, in their order, and the seconds that they took.

    There is at least one; only a worker that was told to start answers nothing.
    """

    answers: Sequence[Message]
    seconds: float


@dataclass(frozen=True)
class Lost:
    """No answer can be had. `is_dead`: nor does the worker live; else it is free again."""

    reason: str
    is_dead: bool


class Pool(Protocol):
    """Workers by number. Each does one thing at a time: it starts, or it answers a handful."""

    def start(self) -> int:
        """A new worker, which has nothing to answer but that it is there."""

    def ask(self, worker: int, messages: Sequence[Message]) -> None:
        """Have a free worker answer."""

    def wait(self, seconds: float) -> list[tuple[int, Answered | Lost]]:
        """What has come to an end, of which worker; the first thing is waited for, so many seconds at most."""

    def end(self, worker: int) -> None:
        """Have no more of the worker, whatever it is at."""


@dataclass(frozen=True)
class _Handful:
    messages: Sequence[Message]
    since: float
    is_last_try: bool


class Dispatch:
    """Messages on their way to `workers` workers of `pool`, and their answers.

    A handful of several that is silent for `stuck_s` seconds has a client that hangs: its worker is given up as lost.
    """

    def __init__(self, pool: Pool, workers: int, stuck_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._workers = workers
        self._stuck_s = stuck_s
        self._clock = clock
        self._fresh: deque[Message] = deque()
        self._again: deque[Message] = deque()  # whose worker was lost: each is asked alone
        self._free: deque[int] = deque()
        self._starting: set[int] = set()
        self._busy: dict[int, _Handful] = {}
        self._answers: list[Message] = []
        self._seconds = HANDFUL_S  # that a message takes, lately
        self._stillborn = 0
        for _ in range(workers):
            self._start()

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker that has started."""
        return bool(self._free or self._busy)

    def add(self, message: Message) -> None:
        """To be asked when it is its turn."""
        self._fresh.append(message)

    def forget(self, message_ids: Collection[str]) -> None:
        """Ask none of these. A worker that is at one of them has not done with it in time, and is replaced."""
        if not message_ids:
            return

        def awaited(messages: Collection[Message]) -> list[Message]:
            return [message for message in messages if message.metadata.message_id not in message_ids]

        self._fresh, self._again = deque(awaited(self._fresh)), deque(awaited(self._again))
        for worker, handful in list(self._busy.items()):
            if len(others := awaited(handful.messages)) < len(handful.messages):
                self._replace(worker)
                self._again.extend(others)

    def take(self) -> list[Message]:
        """The answers that have come since the last time."""
        answers, self._answers = self._answers, []
        return answers

    def turn(self, seconds: float) -> None:
        """Give free workers what there is to do, and see what the others have done; the first one is waited for.

        For so many seconds at most. Raises RuntimeError when no worker can be started.
        """
        self._give()
        until = min((self._stuck_at(handful) for handful in self._busy.values()), default=float("inf"))
        for worker, outcome in self._pool.wait(max(0.0, min(seconds, until - self._clock()))):
            if worker in self._starting:
                self._started(worker, outcome)
            elif worker in self._busy:
                self._done(worker, outcome)
        for worker, handful in list(self._busy.items()):
            if self._stuck_at(handful) <= self._clock():
                self._done(worker, Lost(f"no answer within {self._stuck_s:g} s", is_dead=True))
        self._give()

    def _stuck_at(self, handful: _Handful) -> float:
        return handful.since + self._stuck_s if len(handful.messages) > 1 else float("inf")

    def _give(self) -> None:
        while self._free and (self._fresh or self._again):
            worker = self._free.popleft()
            fresh = self._next_fresh()
            messages = fresh or [self._again.popleft()]
            self._busy[worker] = _Handful(messages, self._clock(), is_last_try=not fresh)
            self._pool.ask(worker, messages)

    def _next_fresh(self) -> list[Message]:
        quick = int(HANDFUL_S / max(self._seconds, HANDFUL_S / _MOST))
        share = len(self._fresh) // (_SHARES * self._workers)
        count = min(max(1, min(quick, share)), len(self._fresh))
        return [self._fresh.popleft() for _ in range(count)]

    def _done(self, worker: int, outcome: Answered | Lost) -> None:
        handful = self._busy.pop(worker)
        if isinstance(outcome, Answered):
            self._free.append(worker)
            self._answers.extend(outcome.answers)
            self._fresh.extendleft(reversed(handful.messages[len(outcome.answers) :]))
            self._seconds = outcome.seconds / len(outcome.answers)
            return
        if outcome.is_dead:
            self._replace(worker)
        else:
            self._free.append(worker)
        if handful.is_last_try:
            self._answers.extend(unusable(message, outcome.reason) for message in handful.messages)
        else:
            self._again.extend(handful.messages)

    def _start(self) -> None:
        self._starting.add(self._pool.start())

    def _started(self, worker: int, outcome: Answered | Lost) -> None:
        self._starting.discard(worker)
        if isinstance(outcome, Answered):
            self._free.append(worker)
            self._stillborn = 0
            return
        self._pool.end(worker)
        self._stillborn += 1
        if self._stillborn < _STARTS:
            self._start()
        elif not self._starting and not self.is_ready:
            raise RuntimeError(f"no worker process can be started: {outcome.reason}")

    def _replace(self, worker: int) -> None:
        self._busy.pop(worker, None)
        self._pool.end(worker)
        self._start()
