"""`fedmd watch`: runs while they go on, from their folder, in this terminal or as a page for a browser."""

import time
from pathlib import Path

from fedmd.runs.progress import watching
from fedmd.watch.folder import seen_runs
from fedmd.watch.follow import Follower

_EVERY_S = 1.0


def watch(path: Path, port: int | None, host: str) -> int:
    """Until all runs are over, or, where pages are served, until Ctrl-C. Raises ConfigError for what cannot be had."""
    return _show(path) if port is None else _serve(path, port, host)


def _show(path: Path) -> int:
    follower = Follower(path)
    with watching(f"fedmd watch {path}", quiet=False, live=True, clock=follower.clock) as watcher:
        while not follower.look(watcher):
            time.sleep(_EVERY_S)
    return 0


def _serve(path: Path, port: int, host: str) -> int:
    seen_runs(path)  # said before matplotlib is imported
    from fedmd.watch.serve import Pages, PageServer

    with PageServer(host, port, Pages(path)) as server:
        print(f"{server.url} follows {path}; Ctrl-C ends it", flush=True)
        server.serve_forever()
    return 0
