"""A search for good settings by Optuna: `fedmd run -m hydra/sweeper=optuna experiment=tune`.

Hydra's own Optuna plug-in is no longer kept up, so the search is made here, of the same overrides: what it looks
through is written as a sweep, `defense.radius=interval(0.1,0.4)`, `defense.step_size=tag(log,interval(0.005,0.1))`,
`history=choice(ema,lag)`, on the command line or under `tune.space`. Every trial is one run a seed of `tune.seeds`,
which should be none of those that results are reported for.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, ValidationError

from fedmd.config import ConfigError, Count, CountOrZero, Section
from fedmd.config.base import sentence
from fedmd.runs.cell import Watcher
from fedmd.runs.compose import Composed, chosen_folder, compose, compose_raw, parse_overrides
from fedmd.runs.places import require_places
from fedmd.runs.typed import refuse_hydra, refuse_unused, typed_keys

SWEEPER = "hydra/sweeper"
TRIALS = "trials.csv"


class TuneConfig(Section):
    """How long, on which seeds and for what is searched; `measure` is a number of summary.json, by its dotted name."""

    trials: Count = 20
    seeds: tuple[CountOrZero, ...] = (100, 101)
    measure: str = "accuracy.final"
    direction: Literal["maximize", "minimize"] = "maximize"
    space: dict[str, str | int | float | bool] = Field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """What is searched: the overrides that stay, the ones with several values, and the folder for what comes of it."""

    tune: TuneConfig
    fixed: tuple[str, ...]
    space: Mapping[str, Override]
    folder: Path

    def runs(self, trial: int, chosen: Mapping[str, object]) -> list[Composed]:
        """One trial's run at every seed."""
        said = [*self.fixed, *(f"{key}={value}" for key, value in chosen.items())]
        place = self.folder / f"trial-{trial:03d}"
        return [replace(compose([*said, f"seed={seed}"]), folder=place / f"seed-{seed}") for seed in self.tune.seeds]

    @property
    def example(self) -> Composed:
        """One run of some trial: its settings fit together, or ConfigError is raised."""
        return self.runs(0, {key: _example(override) for key, override in self.space.items()})[0]


def asks_for_search(overrides: Sequence[str]) -> bool:
    """Whether hydra/sweeper=optuna is among them. Raises ConfigError for another sweeper."""
    chosen = [override.partition("=")[2] for override in overrides if override.partition("=")[0] == SWEEPER]
    if chosen and chosen[-1] not in ("basic", "optuna"):
        raise ConfigError(f"{SWEEPER}: {chosen[-1]!r} is not one of basic, optuna.")
    return bool(chosen) and chosen[-1] == "optuna"


def compose_search(overrides: Sequence[str]) -> Search:
    """The search that the overrides ask for. Raises ConfigError with one sentence; nothing slow is imported."""
    said = [override for override in overrides if override.partition("=")[0] != SWEEPER]
    refuse_hydra(typed_keys(said), "search")
    parsed = parse_overrides(said)
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    base = compose_raw(fixed)
    require_places(base)
    tune = _tune(base)
    space = {override.get_key_element(): override for override in parsed if override.is_sweep_override()}
    for key, values in tune.space.items():
        (override,) = parse_overrides([f"{key}={values}"])
        if not override.is_sweep_override():
            raise ConfigError(f"tune.space: {key}={values} is one value; write interval(LOW,HIGH) or choice(A,B).")
        space.setdefault(key, override)
    if not space:
        raise ConfigError(f"{SWEEPER}: nothing to search; write a setting as interval(LOW,HIGH) or choice(A,B).")
    if "seed" in {*space, *typed_keys(fixed)}:
        raise ConfigError("seed: a search runs every trial on tune.seeds; set these.")
    folder = chosen_folder(base, sweep=True, subdir=False)
    search = Search(tune, tuple(fixed), space, folder)
    refuse_unused([search.example])
    return search


def _tune(base: DictConfig) -> TuneConfig:
    try:
        return TuneConfig.model_validate(OmegaConf.to_container(base.tune, resolve=True))
    except ValidationError as error:
        raise ConfigError(sentence(error, TuneConfig, "tune")) from error


def _example(override: Override) -> object:
    """One value of its own, to see whether it fits."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return value.start
    return next(iter(override.sweep_string_iterator()))


def run_search(search: Search) -> None:
    """Run the trials one after another; leaves trials.csv and a report. Finished runs are skipped.

    The sampler is seeded, so that a search which is started again goes the same way. Raises ConfigError where Optuna is
    not installed, or the summaries have no such number.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(f"{SWEEPER}: optuna is not installed; pip install 'fedmd[tune]', or optuna.") from error
    from fedmd.report.results import flat
    from fedmd.runs.launch import launch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=search.tune.direction, sampler=optuna.samplers.TPESampler(seed=0))
    rows: list[dict[str, object]] = []

    def objective(trial: Any) -> float:
        chosen = {key: _suggest(trial, key, override) for key, override in search.space.items()}
        runs = search.runs(trial.number, chosen)
        launch(runs, Watcher(), sweep=True)
        found = [flat(summary_of(run)).get(search.tune.measure) for run in runs]
        if not all(isinstance(value, int | float) for value in found):
            raise ConfigError(f"tune.measure: a run's summary has no number {search.tune.measure}.")
        values = [float(cast(float, value)) for value in found]
        mean = sum(values) / len(values)
        each = {f"seed {seed}": value for seed, value in zip(search.tune.seeds, values, strict=True)}
        rows.append({"trial": trial.number, **chosen, search.tune.measure: mean, **each})
        _write(search.folder / TRIALS, rows)
        said = " ".join(f"{key}={value}" for key, value in chosen.items())
        print(f"[{len(rows):>3}/{search.tune.trials}] {search.tune.measure} {mean:.4f}  {said}", flush=True)
        return mean

    study.optimize(objective, n_trials=search.tune.trials)
    best = " ".join(f"{key}={value}" for key, value in rows[study.best_trial.number].items() if key in search.space)
    print(f"best: {search.tune.measure} {study.best_value:.4f} with {best}")
    print(f"trials: {search.folder / TRIALS}")
    from fedmd.report.html.write import write_report

    print(f"report: {write_report(search.folder)}")


def summary_of(run: Composed) -> Any:
    """What a finished run left."""
    from fedmd.report.files import read_summary

    summary = read_summary(run.folder)
    assert summary is not None
    return summary


def _suggest(trial: Any, key: str, override: Override) -> object:
    """The next value to try of one override of the space."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(key, low, high, log="log" in value.tags)
        return round(trial.suggest_float(key, low, high, log="log" in value.tags), 6)
    if isinstance(value, ChoiceSweep | RangeSweep):
        return trial.suggest_categorical(key, list(override.sweep_string_iterator()))
    raise ConfigError(f"{key}: a search takes interval(LOW,HIGH), choice(A,B) or range(A,B).")


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    from fedmd.storage import write_text

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
