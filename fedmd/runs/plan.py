"""What `fedmd compare` runs: the arms of a study, written out or as a table of rows times columns. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedmd.config import ConfigError

Arms = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Plan:
    """`arms` maps names to overrides; those that a table makes are called `arm_name(row, column)`."""

    arms: Arms
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def arm_name(row: str, column: str) -> str:
    """The arm in that cell of the table."""
    return f"{column} · {row}"


def read_plan(arms: object, rows: object, columns: object) -> Plan:
    """The arms of `compare.arms`, then those of `compare.rows` × `compare.columns`; a cell has its column's overrides,
    then its row's. Raises ConfigError with one sentence.
    """
    written, across, down = _arms("arms", arms), _arms("columns", columns), _arms("rows", rows)
    if bool(across) != bool(down):
        raise ConfigError("compare.rows and compare.columns: a table needs both, each at least one name.")
    crossed = {arm_name(row, column): (*more, *own) for row, own in down.items() for column, more in across.items()}
    if taken := sorted(set(written) & set(crossed)):
        raise ConfigError(f"compare.arms: {taken[0]!r} is a cell of the table already.")
    return Plan({**written, **crossed}, tuple(down), tuple(across))


def _arms(key: str, value: object) -> Arms:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(
        isinstance(overrides, Sequence) and not isinstance(overrides, str) for overrides in value.values()
    ):
        raise ConfigError(
            f"compare.{key}: must map names to lists of overrides, for example {{plain: [defense=none]}}."
        )
    return {str(name): tuple(map(str, overrides)) for name, overrides in value.items()}
