"""The engine without Ray hands models over by reference; its numbers are the golden ones, which went through bytes."""

from tests.golden.runs import RUNS

BY_REFERENCE = [name for name in RUNS if name.startswith("update-")][:4]
