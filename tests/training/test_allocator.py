"""What a step has freed is there for the next one, without the system's help: counted in pages, not in seconds."""

import resource
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from fedmd.training.allocator import keep_freed_memory
if sys.argv[1] == "keeping":
    keep_freed_memory()

def step():
    blocks = [b"1" * 24_000_000 for _ in range(3)]

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_step_takes_the_memory_of_the_one_before() -> None:
    def pages(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)

    a_step = 3 * 24_000_000 // resource.getpagesize()
    assert pages("keeping") < a_step < pages("giving back")
