"""Importing what a run needs, without looking for garbage meanwhile.

Some 3,000 modules make a million objects that live as long as the process. Python's collector walks through all of them
again and again while they come, and once more at the end: a third of the smallest run.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def starting_up() -> Iterator[None]:
    """No garbage collection while this lasts; what is there afterwards is never looked at again (`gc.freeze`).

    Once a process: whoever calls the command again and again, as tests do, keeps no garbage of later calls.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()
