"""Memory that a round's tensors have freed stays with the process, for the next round's."""

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names of glibc's mallopt(3)
_KEPT_BYTES = 2**30  # free at the end of the heap, and not given back
_MAPPED_BYTES = 2**30, 2**25  # what is larger is mapped on its own and unmapped when freed; older glibc's limit


@cache
def keep_freed_memory() -> None:
    """Where glibc allocates, once a process; elsewhere, nothing.

    It would give memory back after each step and have the system map and clear the same pages for the next one: a tenth
    of the CPU time of a run on the CPU of a virtual machine. Threads share one heap, as those of their own have pieces
    of 64 MB that are given back whole.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        any(mallopt(_MMAP_THRESHOLD, size) for size in _MAPPED_BYTES)  # the first that it takes
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 1)
