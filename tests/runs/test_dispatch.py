"""Who is asked what, and what a lost worker costs: workers are doubles, whose clients behave as their numbers say."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from flwr.app import Error, Message, RecordDict

from fedmd.runs import dispatch as module
from fedmd.runs.dispatch import HANDFUL_S, Answered, Dispatch, Lost
from fedmd.runs.inline import number, server_identity

STUCK_S = 10.0


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@dataclass
class Workers:
    """Each answers at once: `seconds` says how long a node takes (None: for ever), `deadly` nodes end their worker.

    With `starts`, which says of each worker in turn whether it comes to life. Waiting takes the clock forward.
    """

    seconds: Callable[[int], float | None] = lambda node: 0.0
    deadly: frozenset[int] = frozenset()
    unsendable: frozenset[int] = frozenset()
    starts: Callable[[int], bool] = lambda worker: True
    now: float = 0.0
    started: int = 0
    asked: list[tuple[int, list[int]]] = field(default_factory=list)  # by worker
    ended: list[int] = field(default_factory=list)
    calls: dict[int, tuple[float, Answered | Lost]] = field(default_factory=dict)  # when each is over

    def start(self) -> int:
        worker, self.started = self.started, self.started + 1
        there = self.starts(worker)
        self.calls[worker] = (self.now, Answered((), 0.0) if there else Lost("no module named fedmd", True))
        return worker

    def ask(self, worker: int, messages: Sequence[Message]) -> None:
        assert worker not in self.calls and worker not in self.ended
        self.asked.append((worker, [message.metadata.dst_node_id for message in messages]))
        answers: list[Message] = []
        spent = 0.0
        for message in messages:
            node = message.metadata.dst_node_id
            if node in self.deadly | self.unsendable:
                self.calls[worker] = (self.now + spent, Lost("it fell", node in self.deadly))
                return
            if (seconds := self.seconds(node)) is None:
                self.calls[worker] = (float("inf"), Lost("never seen", True))
                return
            spent += seconds
            answers.append(Message(RecordDict(), reply_to=message))
            if spent > HANDFUL_S:
                break
        self.calls[worker] = (self.now + spent, Answered(answers, spent))

    def wait(self, seconds: float) -> list[tuple[int, Answered | Lost]]:
        first = min((at for at, _ in self.calls.values()), default=float("inf"))
        self.now = max(self.now, min(first, self.now + seconds))
        over = [worker for worker, (at, _) in self.calls.items() if at <= self.now]
        return [(worker, self.calls.pop(worker)[1]) for worker in over]

    def end(self, worker: int) -> None:
        self.ended.append(worker)
        self.calls.pop(worker, None)


def ask(pool: Workers, nodes: Sequence[int], workers: int = 2, timeout_s: float = 100.0) -> dict[int, Error | None]:
    """One round: what came of each node that answered, None where it did."""
    return round_of(Dispatch(pool, workers, STUCK_S, lambda: pool.now), pool, nodes, timeout_s)


def round_of(dispatch: Dispatch, pool: Workers, nodes: Sequence[int], timeout_s: float) -> dict[int, Error | None]:
    waiting: dict[str, int] = {}
    for count, node in enumerate(nodes):
        message = Message(RecordDict(), node, "query")
        waiting[number(message, count)] = node
        dispatch.add(message)
    until = pool.now + timeout_s
    found: dict[int, Error | None] = {}
    while waiting and pool.now < until:
        dispatch.turn(until - pool.now)
        for reply in dispatch.take():
            node = waiting.pop(reply.metadata.reply_to_message_id)  # each is answered once
            found[node] = reply.error if reply.has_error() else None
    dispatch.forget(waiting)
    return found


def times(pool: Workers, node: int) -> int:
    return sum(node in nodes for _, nodes in pool.asked)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 5.0])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_everybody_is_asked_once_and_heard(seconds: float, count: int) -> None:
    pool = Workers(lambda node: seconds)
    nodes = range(1, count + 1)
    assert ask(pool, nodes, timeout_s=1e6) == dict.fromkeys(nodes)
    assert all(times(pool, node) == 1 for node in nodes) and not pool.ended
    largest = max(len(asked) for _, asked in pool.asked)
    assert largest == 1 if seconds > HANDFUL_S or count < 8 else 8 < largest <= HANDFUL_S / max(seconds, 1e-9)


def test_what_a_worker_has_no_time_for_is_for_others() -> None:
    """Nodes were quick, and now every fifth is not: nobody waits behind it."""
    pool = Workers(lambda node: 7.0 if node % 5 == 0 else 0.0)
    nodes = range(1, 65)
    found = ask(pool, nodes, timeout_s=1e6)
    assert found == dict.fromkeys(nodes)
    assert any(len(asked) > 1 for _, asked in pool.asked) and not pool.ended
    assert pool.now <= 7.0 * (12 / 2 + 1)


def test_who_ends_the_worker_is_refused_and_the_others_are_asked_once_more_alone() -> None:
    pool = Workers(deadly=frozenset({50}))
    nodes = range(1, 101)
    found = ask(pool, nodes)
    assert {node for node, error in found.items() if error} == {50} and set(found) == set(nodes)
    assert found[50] is not None and found[50].reason == "it fell"
    assert times(pool, 50) == 2 and len(pool.ended) == 2 and pool.started == 4
    (together,) = [asked for _, asked in pool.asked if 50 in asked and len(asked) > 1]
    assert all(times(pool, node) == (2 if node in together else 1) for node in nodes)
    assert all([node] in [asked for _, asked in pool.asked] for node in together)


def test_an_innocent_whose_idle_worker_had_died_is_heard() -> None:
    """As when a machine goes, or a client leaves something behind that ends its worker later."""
    pool = Workers(deadly=frozenset({1}))
    dispatch = Dispatch(pool, 1, STUCK_S, lambda: pool.now)
    dispatch.turn(0)
    message = Message(RecordDict(), 1, "query")
    number(message, 0)
    dispatch.add(message)
    dispatch.turn(0)
    pool.deadly = frozenset()
    while not (answers := dispatch.take()):
        dispatch.turn(1)
    assert not answers[0].has_error() and times(pool, 1) == 2


def test_a_reply_that_cannot_be_sent_costs_no_worker() -> None:
    pool = Workers(unsendable=frozenset({3}))
    found = ask(pool, range(1, 5))
    assert [node for node, error in found.items() if error] == [3] and not pool.ended and times(pool, 3) == 2


def test_nobody_waits_for_one_that_hangs() -> None:
    pool = Workers(lambda node: None if node == 40 else 0.0)
    dispatch = Dispatch(pool, 2, STUCK_S, lambda: pool.now)
    nodes = range(1, 65)
    assert round_of(dispatch, pool, nodes, 100.0) == dict.fromkeys(set(nodes) - {40})
    assert times(pool, 40) == 2 and pool.now == 100.0
    assert len(pool.ended) == 2  # with others after STUCK_S, alone after the deadline
    pool.seconds = lambda node: 0.0
    assert round_of(dispatch, pool, nodes, 100.0) == dict.fromkeys(nodes)


def test_what_nobody_waits_for_is_not_asked() -> None:
    pool = Workers(lambda node: 60.0)
    dispatch = Dispatch(pool, 2, STUCK_S, lambda: pool.now)
    assert set(round_of(dispatch, pool, range(1, 9), 100.0)) == {1, 2}
    pool.seconds = lambda node: 1.0
    before = pool.now
    assert round_of(dispatch, pool, [20, 21], 100.0) == {20: None, 21: None}
    assert pool.now == before + 1.0 and max(node for _, asked in pool.asked[:4] for node in asked) == 4


def test_workers_that_never_start() -> None:
    with pytest.raises(RuntimeError, match="no worker process can be started: no module named fedmd"):
        ask(Workers(starts=lambda worker: False), [1])
    pool = Workers(starts=lambda worker: worker == 0)  # a machine of the cluster has no fedmd
    assert ask(pool, range(1, 9)) == dict.fromkeys(range(1, 9))
    assert pool.started == 2 + module._STARTS - 1


def test_not_ready_before_one_has_started() -> None:
    pool = Workers()
    dispatch = Dispatch(pool, 2, STUCK_S, lambda: pool.now)
    assert not dispatch.is_ready
    dispatch.turn(0)
    assert dispatch.is_ready
