"""Which settings a run has no use for, and why: what the user typed among them is refused by name, not ignored."""

from typing import Protocol

from fedmd.config.base import Mode, OnlyIn
from fedmd.config.plugin import PluginSection, Unresolved
from fedmd.config.run import RunConfig
from fedmd.registry import REGISTRIES

_OF_SHIFT = {
    "classes": ("classes",),
    "angle": ("rotation",),
    "corruption": ("corruption",),
    "severity": ("corruption",),
    "trusted": ("rotation", "corruption"),  # under name=classes the trusted set has all of them
}


class NothingFrom(Protocol):
    """Notes that nothing comes of some keys, and why."""

    def __call__(self, reason: str, *keys: str) -> None:
        """The first reason for a key stands."""


def unused(run: RunConfig) -> dict[str, str]:
    """The dotted keys (a group's stands for all that is in it) that change nothing in `run`, each with the reason.

    Of a plug-in that is not fedmd's own nobody knows what it looks at, so its reasons are not looked for.

        >>> from fedmd.config.unused import unused
        >>> from fedmd.runs.compose import compose
        >>> unused(compose(["defense=none"]).config)["threshold"]
        'defense=none goes by no threshold'
    """
    found: dict[str, str] = {}

    def nothing_from(reason: str, *keys: str) -> None:
        for key in keys:
            found.setdefault(key, reason)

    other: Mode = "update" if run.mode == "stream" else "stream"
    for key, section in run:
        if isinstance(section, PluginSection):
            for part in (section, section.params):
                marked = [name for name, field in type(part).model_fields.items() if OnlyIn(other) in field.metadata]
                nothing_from(f"is for mode={other}", *(f"{key}.{name}" for name in marked))
            if not isinstance(section.params, Unresolved):
                for name, reason in section.plugin.unused(section.params, run.mode).items():
                    nothing_from(reason, f"{key}.{name}")
    if run.mode == "stream":
        nothing_from("is for mode=update", "strategy", "screening", "local")
    else:
        nothing_from("is for mode=stream", "threshold", "training.online", "stream.batch_size")
        nothing_from("is for mode=stream", "federation.batches_per_reply", "runtime.overlap")
        nothing_from("is for mode=stream", *(f"defense.{key}" for key in run.defense.common_fields()))
    if not isinstance(run.attack.params, Unresolved) and not getattr(run.attack.plugin, "phases", True):
        nothing_from(f"attack={run.attack.name} attacks nobody", "attack.fraction")
    if run.defense.detector != "custom":
        nothing_from("is for defense.detector=custom", "defense.detector_factory")
    _of_the_defense(run, nothing_from)
    _of_choices(run, nothing_from)
    return found


def _of_the_defense(run: RunConfig, nothing_from: NothingFrom) -> None:
    """What the chosen defence does not look at."""
    defense = run.defense
    if isinstance(defense.params, Unresolved) or defense.plugin not in REGISTRIES["defense"].own():
        return
    if run.mode == "update":
        if not getattr(defense.plugin, "screens_updates", False):
            nothing_from(f"defense={defense.name} screens no updates", "screening", "history")
    elif not getattr(defense.plugin, "uses_threshold", False):
        nothing_from(f"defense={defense.name} goes by no threshold", "threshold", "defense.stopping")
    if defense.name == "frozen":
        moves = ("training.online.lr", "training.online.momentum", "history.lag", "history.decay")
        nothing_from("under defense=frozen the model never moves", *moves)


def _of_choices(run: RunConfig, nothing_from: NothingFrom) -> None:
    """What belongs to another choice within its section."""
    partition, shift, screening = run.data.partition.name, run.stream.shift.name, run.screening
    if partition != "dirichlet":
        nothing_from("is for data.partition.name=dirichlet", "data.partition.alpha")
    if partition != "shards":
        nothing_from("is for data.partition.name=shards", "data.partition.classes_per_client")
    for key, names in _OF_SHIFT.items():
        if shift not in names:
            nothing_from(f"is for stream.shift.name={' or '.join(names)}", f"stream.shift.{key}")
    if run.training.online.batchnorm not in ("train", "median"):
        nothing_from("is for training.online.batchnorm=train or median", "training.online.batchnorm_momentum")
    if screening.past == "ignored":
        nothing_from("is for screening.past=alone or always", "screening.past_quantile", "screening.past_factor")
    if screening.threshold == "robust":
        nothing_from("is for screening.threshold=fixed", "screening.lower", "screening.upper")
    else:
        robust = "is for screening.threshold=robust"
        nothing_from(robust, "screening.tails", "screening.past_quantile", "screening.past_factor")
        if screening.past != "ignored":  # which it is
            nothing_from(robust, "screening.past")
        if screening.loss == "ignored":
            nothing_from(f"{robust} or screening.loss=screened", "screening.k", "screening.floor")
    if run.quarantine.name == "none":
        keys = [key for key in type(run.quarantine).model_fields if key != "name"]
        nothing_from("is for quarantine=evidence", *(f"quarantine.{key}" for key in keys))
    if run.observability.prometheus_port is None:
        nothing_from("is for observability.prometheus_port=PORT", "observability.host")
    if run.runtime.engine == "inline":
        nothing_from("is for runtime.engine=ray", "runtime.workers", "runtime.spread", "runtime.ray_address")
