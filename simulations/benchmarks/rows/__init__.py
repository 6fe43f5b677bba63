"""The rows of the benchmark, a module a group, in the order of the table; baselines are scripts beside them.

A module here has `ROWS`, a tuple of `Row`; its name stands in `MODULES`.
"""

from importlib import import_module

from simulations.benchmarks.harness import Row

MODULES = ("fedavg", "empty_rounds", "startup", "study", "demo", "population", "kernels")


def all_rows() -> dict[str, Row]:
    """Every row by its name."""
    return {row.name: row for module in MODULES for row in import_module(f"simulations.benchmarks.rows.{module}").ROWS}
