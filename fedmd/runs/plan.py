"""What `fedmd compare` runs: the arms of a study, written out or as a table of rows times columns, at every seed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from fedmd.config import ConfigError
from fedmd.runs.compose import Composed, choices, chosen_folder, compose_raw, validated
from fedmd.runs.typed import refuse_hydra, refuse_unused, typed_keys

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class Arm:
    """What people call an arm (or a row or column of arms), and the overrides that make it."""

    label: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The arms by id, which names a folder; those of a table are `cells[row][column]`."""

    arms: dict[str, Arm]
    rows: dict[str, Arm]
    columns: dict[str, Arm]

    @property
    def cells(self) -> dict[str, dict[str, str]]:
        """The id of the arm in each cell of the table."""
        return {row: {column: cell_id(row, column) for column in self.columns} for row in self.rows}


@dataclass(frozen=True)
class StudyRuns:
    """`runs[arm][seed]` of a plan, the folder for what comes of them, and the two arms others are compared with."""

    folder: Path
    plan: Plan
    runs: dict[str, dict[int, Composed]]
    baseline: str
    frozen: str


def cell_id(row: str, column: str) -> str:
    """The id of the arm in that cell of the table."""
    return f"{column}_{row}"


def compose_study(overrides: Sequence[str]) -> StudyRuns:
    """The study of `experiment=NAME`: every arm at every seed, in hydra.sweep.dir or else comparisons/NAME.

    Raises ConfigError with one sentence.
    """
    refuse_hydra(typed_keys(overrides), "compare")
    base = compose_raw(overrides)
    wanted = base.compare
    if not isinstance(wanted, DictConfig):
        raise ConfigError(f"experiment: choose one with arms to compare: {', '.join(choices('experiment'))}.")
    plan = read_plan(*(_plain(wanted.get(key)) for key in ("arms", "rows", "columns")))
    if not plan.arms:
        raise ConfigError(f"experiment: choose one with arms to compare: {', '.join(choices('experiment'))}.")
    seeds = wanted.seeds if isinstance(wanted.seeds, ListConfig) else []
    if not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise ConfigError("compare.seeds: must be a list of integers >= 0, for example compare.seeds=[0,1,2].")
    for role, usual in (("baseline", "no_attack"), ("frozen", "frozen")):  # a study can be without, not with another's
        if (arm_id := str(wanted[role])) not in {*plan.arms, usual}:
            raise ConfigError(f"compare.{role}: {arm_id} is no arm of this study; its arms are {', '.join(plan.arms)}.")
    mine = {override.partition("=")[0] for override in overrides}
    for arm_id, arm in plan.arms.items():
        if taken := mine & {"seed", *(override.partition("=")[0] for override in arm.overrides)}:
            key = sorted(taken)[0]
            where = "compare.seeds" if key == "seed" else f"the arm {arm_id!r}"
            raise ConfigError(f"{key}: {where} sets it in this study; change it there.")
    runs = {arm_id: _at_seeds([*overrides, *arm.overrides], seeds) for arm_id, arm in plan.arms.items()}
    refuse_unused([next(iter(at_seeds.values())) for at_seeds in runs.values()])
    if "hydra.sweep.dir" in mine:
        folder = chosen_folder(base, sweep=True, subdir=False)
    else:
        folder = Path("comparisons", str(base.hydra.runtime.choices.experiment)).absolute()
    return StudyRuns(folder, plan, runs, str(wanted.baseline), str(wanted.frozen))


def _at_seeds(overrides: Sequence[str], seeds: Sequence[int]) -> dict[int, Composed]:
    """The run of `overrides` at every seed, composed once: Hydra takes a tenth of a second."""
    composed = compose_raw(overrides)
    runs = {}
    for seed in seeds:
        composed.seed = seed
        runs[int(seed)] = validated(composed, [*overrides, f"seed={seed}"], sweep=False)
    return runs


def _plain(node: object) -> object:
    return OmegaConf.to_container(node) if isinstance(node, DictConfig | ListConfig) else node


def read_plan(arms: object, rows: object, columns: object) -> Plan:
    """The arms of `compare.arms`, then those of `compare.rows` × `compare.columns`.

    A cell has its column's overrides, then its row's. Raises ConfigError with one sentence.
    """
    written, across, down = _arms("arms", arms), _arms("columns", columns), _arms("rows", rows)
    if bool(across) != bool(down):
        raise ConfigError("compare.rows and compare.columns: a table needs both, each at least one id.")
    cells = [
        (cell_id(row, column), Arm(f"{defence.label} · {attack.label}", (*defence.overrides, *attack.overrides)))
        for row, attack in down.items()
        for column, defence in across.items()
    ]
    everything = [*written.items(), *cells]
    _require_unique("arms", "id", (arm_id.lower() for arm_id, _ in everything))  # some disks do not tell A from a
    _require_unique("arms", "label", (arm.label for _, arm in everything))
    return Plan(dict(everything), down, across)


def _arms(key: str, value: object) -> dict[str, Arm]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _misshapen(key)
    arms = {str(arm_id): _arm(key, str(arm_id), entry) for arm_id, entry in value.items()}
    _require_unique(key, "label", (arm.label for arm in arms.values()))
    return arms


def _arm(key: str, arm_id: str, entry: object) -> Arm:
    if not _ID.fullmatch(arm_id):
        raise ConfigError(
            f"compare.{key}: {arm_id!r} names a folder, so it must consist of at most 100 ASCII letters, digits, _ and "
            "-, and not begin with -; what people are to read is its label."
        )
    fields = entry if isinstance(entry, Mapping) else {"overrides": entry}
    overrides = fields.get("overrides")
    if set(fields) - {"label", "overrides"} or not isinstance(overrides, Sequence) or isinstance(overrides, str):
        raise _misshapen(key)
    return Arm(str(fields.get("label", arm_id)), tuple(map(str, overrides)))


def _misshapen(key: str) -> ConfigError:
    return ConfigError(
        f"compare.{key}: must map ids to lists of overrides, for example {{plain: [defense=none]}}, or to "
        "{label: TEXT, overrides: [...]}."
    )


def _require_unique(key: str, what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"compare.{key}: the {what} {value!r} is there twice.")
        seen.add(value)
