"""A federation's clients in processes of their own: a Flower grid over Ray actors that call the very same client app.

Headers travel as arguments. Models lie in Ray's object store: the server's is put there once a round and mapped by each
worker of a machine, and what clients have learned is read where it lies.
"""

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from flwr.app import Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError
from torch import nn

from fedmd.config import RuntimeConfig
from fedmd.flower.server.grids import LocalGrid
from fedmd.flower.wire.header import HEADER
from fedmd.flower.wire.model_exchange import Exchange, Published, keep_state, name_in
from fedmd.flower.wire.updates import as_tensors
from fedmd.runs.cluster import first_line, places, require_place
from fedmd.runs.dispatch import HANDFUL_S, Answered, Dispatch, Lost
from fedmd.runs.inline import answer, number

Model = Mapping[str, NDArray[Any]]
_LOOK_S = 1.0  # Ray keeps signals waiting for so long


class Worker:
    """What runs in each process: the client app, for any node."""

    def __init__(self, app: ClientApp, nodes: int) -> None:
        self._app = app
        self._nodes = nodes

    def started(self) -> Answered:
        """Say so."""
        return Answered((), 0.0)

    def answer(self, messages: Sequence[Message], name: str, model: Model | None) -> Answered:
        """Answer the first message, and more until HANDFUL_S are over; `model` is called `name` in requests."""
        if model is not None:
            keep_state(name, as_tensors(model))
        began = time.perf_counter()
        answers: list[Message] = []
        for message in messages:
            answers.append(answer(self._app, message, self._nodes))
            if time.perf_counter() - began > HANDFUL_S:
                break
        return Answered(answers, time.perf_counter() - began)


class RayPool:
    """See `Pool`: a worker is a Ray actor with `needs` of its machine (CPU, GPU), and a call an object to come."""

    def __init__(self, app: ClientApp, nodes: int, needs: Mapping[str, float]) -> None:
        # A lost worker is replaced by a new one, so that no call ever waits for an old one to come back.
        actor = ray.remote(Worker).options(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_restarts=0)
        self._new: Callable[[], Any] = lambda: actor.remote(app, nodes)
        self._numbers = itertools.count()
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        self._name = ""
        self._model: Any = None

    def publish(self, name: str, model: Model) -> None:
        """Let requests that call the model by `name` find it in any worker."""
        self._name, self._model = name, ray.put(model)

    def start(self) -> int:
        """A new actor."""
        worker = next(self._numbers)
        self._actors[worker] = self._new()
        self._calls[self._actors[worker].started.remote()] = worker
        return worker

    def ask(self, worker: int, messages: Sequence[Message]) -> None:
        """Call it. The model goes with a message that names it."""
        model = self._model if any(map(self._names_model, messages)) else None
        self._calls[self._actors[worker].answer.remote(messages, self._name, model)] = worker

    def wait(self, seconds: float) -> list[tuple[int, Answered | Lost]]:
        """See `Pool`; a reply that does not get through Ray is lost as well."""
        calls = list(self._calls)
        if not calls:
            time.sleep(min(seconds, _LOOK_S))
            return []
        if not (done := ray.wait(calls, timeout=min(seconds, _LOOK_S))[0]):
            return []
        done = ray.wait(calls, num_returns=len(calls), timeout=0)[0] if len(calls) > 1 else done
        return [(self._calls.pop(call), _outcome(call)) for call in done]

    def end(self, worker: int) -> None:
        """Kill the actor, whose call is nobody's any more."""
        ray.kill(self._actors.pop(worker))
        self._calls = {call: other for call, other in self._calls.items() if other != worker}

    def close(self) -> None:
        """End them all."""
        for worker in list(self._actors):
            self.end(worker)

    def _names_model(self, message: Message) -> bool:
        header = message.content.config_records.get(HEADER)
        return header is not None and self._name != "" and header.get("model_file") == self._name


def _outcome(call: Any) -> Answered | Lost:
    try:
        answered: Answered = ray.get(call)
    except Exception as error:  # whatever unpickling may raise
        is_dead = isinstance(error, RayError) and not isinstance(error, RayTaskError)
        return Lost(f"its worker was lost ({first_line(error)})" if is_dead else first_line(error), is_dead)
    return answered


class InObjectStore:
    """See `Exchange`: one copy of the model a machine, whichever of its workers look at it."""

    def __init__(self, folder: Path, pool: RayPool) -> None:
        self.folder = str(folder)
        self._pool = pool

    def publish(self, round: int, model: nn.Module) -> Published:
        """Put this round's model there, in place of the one before."""
        name = name_in(self.folder)
        state = {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in model.state_dict().items()}
        self._pool.publish(name, state)
        return Published(model_file=name)


class RayGrid(LocalGrid):
    """`nodes` nodes played by the workers of `dispatch`, which has those of `pool`."""

    def __init__(self, nodes: int, pool: RayPool, dispatch: Dispatch) -> None:
        super().__init__(nodes)
        self._pool = pool
        self._dispatch = dispatch
        self._numbers = itertools.count(1)

    def get_node_ids(self) -> list[int]:
        """None before there is a worker."""
        self._dispatch.turn(0)
        return super().get_node_ids() if self._dispatch.is_ready else []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Each is asked when a worker is free."""
        ids = []
        for message in messages:
            ids.append(number(message, next(self._numbers)))
            self._dispatch.add(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """All answers that are there."""
        self._dispatch.turn(0)
        return self._dispatch.take()

    def wait(self, seconds: float) -> None:
        """See `LocalGrid`."""
        self._dispatch.turn(seconds)

    def forget(self, message_ids: Collection[str]) -> None:
        """See `LocalGrid`; who is still at one of them loses the worker."""
        self._dispatch.forget(message_ids)

    def exchange(self, folder: Path) -> Exchange:
        """Ray's object store."""
        return InObjectStore(folder, self._pool)


@contextmanager
def ray_grid(app: ClientApp, runtime: RuntimeConfig, nodes: int, asked: int, timeout_s: float) -> Iterator[RayGrid]:
    """A grid on the Ray that this process is connected to, of which `asked` nodes at most are asked at once.

    `timeout_s` is the deadline of a round. Raises ConfigError where no machine has room for a worker.
    """
    needs = {"CPU": runtime.client_cpus} | ({"GPU": runtime.client_gpus} if runtime.client_gpus else {})
    require_place(needs, "runtime.client_cpus, client_gpus", "a worker")
    workers = min(asked, places(needs), runtime.workers or asked)
    pool = RayPool(app, nodes, needs)
    try:
        yield RayGrid(nodes, pool, Dispatch(pool, workers, timeout_s / 2))
    finally:
        pool.close()
