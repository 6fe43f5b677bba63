"""How far a node's stream has been sent, on disk: a sample is sent once, whatever is restarted in between."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from fedmd.config import ConfigError
from fedmd.data.node_stream import Samples
from fedmd.storage import read_json, write_json
from fedmd.types import Json

REMEMBERED = 64  # rounds whose samples are known by number, so that a question asked again gets the same answer


def take(
    file: Path,
    run: str,
    round: int,
    count: int,
    read: Callable[[int, int], Samples | None],
    *,
    remembered: int = REMEMBERED,
) -> Samples | None:
    """The next `count` samples of a stream, noted in `file` as sent before they are; None where none are left.

    `read(start, count)` reads them. Asked again for a round of the same run, as by a server that resumed, the answer
    is the same samples; a new run goes on where the last one stopped. If a message is lost on its way, its samples
    are lost with it: sent at most once, unless the server asks again; it can for the latest `remembered` rounds.

    Raises ConfigError when the file cannot be read or written, when the round is older than what is remembered, and
    what `read` raises.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_name(f"{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two runs may ask one node at once
            state: Json = read_json(file) if file.exists() else {"run": run, "next": 0, "sent": {}}
            sent: dict[str, list[int]] = state["sent"] if state["run"] == run else {}
            if str(round) in sent:
                start, stop = sent[str(round)]
                return read(start, stop - start)
            if len(sent) >= remembered and round < min(map(int, sent)):
                raise ConfigError(f"position: what was sent in round {round} is not remembered any more.")
            start = int(state["next"])
            samples = read(start, count)
            stop = start + (0 if samples is None else len(samples[1]))
            sent[str(round)] = [start, stop]
            kept = dict(list(sent.items())[-remembered:])
            write_json(file, {"run": run, "next": stop, "sent": kept})
            return samples
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"position: {file} cannot be read and written ({error}).") from error
