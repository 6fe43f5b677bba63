"""Answers pulled over HTTP, each in a thread of its own: no node can hold up a round or the answers of others."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from httpx import HTTPError

if TYPE_CHECKING:
    from flwr.superlink.grid import HttpGrid  # slow to import, and only for a real federation


@dataclass(frozen=True)
class _Pull:
    """A pull of the answer to the request `message_id`."""

    message_id: str
    pulled: Future[list[Message]]


class Pulls:
    """The pulls under way from a grid over HTTP, at most one a node, whatever the rounds before left behind.

    Flower asks for an answer's header first, and then for its objects until they are there or it gives up, which takes
    a node that never uploads them minutes, and hours in the worst case. Nothing can call such a pull off. It is left
    alone with its thread, what it brings in the end is dropped, and its node is not asked for another answer before.

    Flower's client is made for that: it asks for the objects of one answer from several threads itself.
    """

    def __init__(self, grid: "HttpGrid") -> None:
        self._grid = grid
        self._by_node: dict[int, _Pull] = {}

    def answers(self, waiting: Mapping[str, Message], patience_s: float) -> Iterator[Message]:
        """The answers to the requests `waiting`, by message id, that are there within `patience_s` seconds.

        Flower decodes them on the way, stops at the first that a node made undecodable, and delivers nothing twice: so
        they are pulled one by one, and such an answer becomes an error of its own node. Raises HTTPError when the
        SuperLink cannot be used.
        """
        self._forget_late(waiting)
        self._start({message_id: request.metadata.dst_node_id for message_id, request in waiting.items()})
        mine = {node: pull for node, pull in self._by_node.items() if pull.message_id in waiting}
        wait([pull.pulled for pull in mine.values()], patience_s)
        for node, pull in mine.items():
            if pull.pulled.done():
                del self._by_node[node]
                yield from _answer(pull.pulled, waiting[pull.message_id])

    def _forget_late(self, waiting: Mapping[str, Message]) -> None:
        for node, pull in list(self._by_node.items()):
            if pull.message_id not in waiting and pull.pulled.done():
                del self._by_node[node]

    def _start(self, nodes: Mapping[str, int]) -> None:
        idle = {message_id: node for message_id, node in nodes.items() if node not in self._by_node}
        if not idle:
            return
        pool = ThreadPoolExecutor(len(idle), thread_name_prefix="pull")
        for message_id, node in idle.items():
            self._by_node[node] = _Pull(message_id, pool.submit(self._pull, message_id))
        pool.shutdown(wait=False)  # its threads end with their last pull

    def _pull(self, message_id: str) -> list[Message]:
        return list(self._grid.pull_messages([message_id]))


def _answer(pulled: Future[list[Message]], request: Message) -> Iterator[Message]:
    try:
        yield from pulled.result()
    except HTTPError:
        raise
    except Exception as error:  # whatever protobuf, JSON and Flower's own checks make of bad bytes
        reason = f"its answer cannot be decoded: {type(error).__name__}"
        yield Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, reason), reply_to=request)
