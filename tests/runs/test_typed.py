"""What was typed and is of no use is refused by name; what a preset says, or some run of several uses, is not."""

import pytest

from fedmd.config import ConfigError, RunConfig
from fedmd.config.unused import unused
from fedmd.runs.compose import choices, compose, expand
from fedmd.runs.plan import compose_study
from fedmd.runs.typed import refuse_hydra, refuse_unused, typed_keys


def refusal(*overrides: str) -> str:
    """What the command line says to a single run; nothing where it is fine."""
    try:
        refuse_hydra(typed_keys(overrides), "run")
        refuse_unused([compose(overrides)])
    except ConfigError as error:
        return str(error)
    return ""


QUICK = [
    (["strategy=krum"], "strategy", "mode=update"),
    (["screening=fixed"], "screening", "mode=update"),
    (["local.lr=0.1"], "local.lr", "mode=update"),
    (["mode=update", "federation.batches_per_reply=2"], "federation.batches_per_reply", "mode=stream"),
    (["defense=none", "threshold.fpr=0.1"], "threshold.fpr", "defense=none"),
    (["attack=none", "attack.fraction=0.2"], "attack.fraction", "attack=none"),
    (["hydra.sweep.dir=/tmp/x"], "hydra.sweep.dir", "hydra.run.dir"),
    (["hydra/launcher=joblib"], "hydra/launcher", "runtime.workers"),
    (["tune.trials=3"], "tune.trials", "hydra/sweeper=optuna"),
    (["hydra.verbose=true"], "hydra.verbose", "observability.json_logs"),
]
REST = [
    (["strategy=krum", "strategy.malicious_share=0.3"], "strategy", "mode=update"),
    (["screening.k=3"], "screening.k", "mode=update"),
    (["attack.norm_bound=2"], "attack.norm_bound", "mode=update"),
    (["mode=update", "threshold=fixed"], "threshold", "mode=stream"),
    (["mode=update", "training.online.lr=1"], "training.online.lr", "mode=stream"),
    (["mode=update", "stream.batch_size=5"], "stream.batch_size", "mode=stream"),
    (["mode=update", "attack.radius=0.3"], "attack.radius", "mode=stream"),
    (["mode=update", "defense=none", "defense.baselines=true"], "defense.baselines", "mode=stream"),
    (["mode=update", "defense=none", "screening.probe=9"], "screening.probe", "defense=none"),
    (["mode=update", "defense=none", "history=lag"], "history", "defense=none"),
    (["mode=update", "screening.past=ignored", "screening.past_factor=9"], "screening.past_factor", "screening.past"),
    (["mode=update", "+screening.lower=0.1"], "screening.lower", "screening.threshold=fixed"),
    (["mode=update", "screening=fixed", "+screening.k=3"], "screening.k", "screening.loss=screened"),
    (["mode=update", "attack.momentum=0.9"], "attack.momentum", "attack.trigger=clean"),
    (
        ["mode=update", "attack.trigger=clean", "attack.discrepancy_penalty=0.1"],
        "attack.discrepancy_penalty",
        "attack.defense_knowledge=model",
    ),
    (["attack.discrepancy_penalty=5"], "attack.discrepancy_penalty", "attack.defense_knowledge=model"),
    (["defense=at", "defense.stopping=per_client"], "defense.stopping", "defense=at"),
    (["defense=frozen", "training.online.lr=1"], "training.online.lr", "defense=frozen"),
    (["defense=frozen", "history=lag", "history.lag=2"], "history.lag", "defense=frozen"),
    (["defense.detector_factory=a:B"], "defense.detector_factory", "defense.detector=custom"),
    (["data.partition.alpha=0.1"], "data.partition.alpha", "name=dirichlet"),
    (["data.partition.classes_per_client=2"], "data.partition.classes_per_client", "name=shards"),
    (["mode=update", "screening=fixed", "+screening.past=always"], "screening.past", "screening.threshold=robust"),
    (["mode=update", "screening=fixed", "+screening.past_factor=9"], "screening.past_factor", "threshold=robust"),
    (["stream.shift.trusted=before"], "stream.shift.trusted", "name=rotation or corruption"),
    (
        ["stream.shift.name=classes", "stream.shift.classes=[1]", "stream.shift.trusted=before"],
        "stream.shift.trusted",
        "name=rotation or corruption",
    ),
    (["stream.shift.angle=10"], "stream.shift.angle", "name=rotation"),
    (["stream.shift.name=rotation", "stream.shift.severity=2"], "stream.shift.severity", "name=corruption"),
    (["training.online.batchnorm_momentum=0.5"], "training.online.batchnorm_momentum", "batchnorm=train"),
    (["+quarantine.false_alarms=3"], "quarantine.false_alarms", "quarantine=evidence"),
    (["observability.host=0.0.0.0"], "observability.host", "prometheus_port"),
    (["runtime.engine=inline", "runtime.workers=2"], "runtime.workers", "engine=ray"),
    (["compare.seeds=[1]"], "compare.seeds", "fedmd compare"),
    (["hydra.job.num=3"], "hydra.job.num", "hydra.run.dir"),
]


@pytest.mark.parametrize(
    ("overrides", "key", "reason"), [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in REST)]
)
def test_what_a_run_does_not_use_is_refused(overrides: list[str], key: str, reason: str) -> None:
    sentence = refusal(*overrides)
    assert sentence.startswith(f"{key}: ") and reason in sentence and sentence.endswith("."), sentence


@pytest.mark.parametrize(
    "overrides",
    [
        ["attack.fraction=0.2", "defense=dsc", "threshold.fpr=0.1", "history=ema", "history.decay=0.8"],
        ["experiment=stationary", "defense=none"],  # what the experiment sets for others lies idle
        ["mode=update", "strategy=krum", "local.lr=0.1", "screening.k=3", "attack.norm_bound=2"],
        ["defense=none", "defense.detector=lid", "history=lag"],  # recorded, and in the report
        ["defense=trim", "defense.trim_share=0.3"],
        ["data.partition.name=dirichlet", "data.partition.alpha=0.1"],
        ["defense=custom", "defense.factory=fedmd.defense.samples.pipeline:Defense", "threshold.fpr=0.1"],
        ["hydra.run.dir=/tmp/x", "seed=3"],
    ],
)
def test_what_a_run_uses_is_not(overrides: list[str]) -> None:
    assert refusal(*overrides) == ""


def test_a_setting_may_lie_idle_in_some_runs_of_a_sweep_but_not_in_all() -> None:
    def sweep(*overrides: str) -> None:
        refuse_hydra(typed_keys(overrides), "sweep")
        refuse_unused([compose(one, sweep=True) for one in expand(overrides)])

    sweep("defense=none,dsc", "threshold.fpr=0.1")
    with pytest.raises(ConfigError, match=r"^threshold\.fpr: defense=none goes by no threshold; none of these runs"):
        sweep("defense=none,frozen", "threshold.fpr=0.1")
    with pytest.raises(ConfigError, match=r"^hydra\.run\.dir: is for a single run"):
        sweep("seed=0,1", "hydra.run.dir=/tmp/x")


def test_of_a_study_likewise() -> None:
    compose_study(["experiment=smoke", "threshold.fpr=0.1"])  # idle in its undefended arms
    with pytest.raises(ConfigError, match=r"^strategy: is for mode=update"):
        compose_study(["experiment=smoke", "strategy=krum"])
    with pytest.raises(ConfigError, match=r"^local\.lr: is for mode=update"):
        compose_study(["experiment=smoke", "+compare.arms.mine=['defense=drop','local.lr=1']"])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [name for name in choices("experiment") if name not in ("deployment", "tune")])
def test_our_own_studies_type_nothing_in_vain(experiment: str) -> None:
    needed = ["data.path=/nowhere"] if "cifar10" in experiment else []
    compose_study([f"experiment={experiment}", "compare.seeds=[0]", *needed])


def test_every_key_named_unused_is_a_key() -> None:
    """Else a rule could never apply."""
    known = set()

    def collect(section: type, place: str) -> None:
        for key, field in section.model_fields.items():
            known.add(f"{place}{key}")
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                collect(inner, f"{place}{key}.")

    collect(RunConfig, "")
    of_plugins = {"history.lag", "history.decay"}
    for overrides in (["defense=none", "attack=none"], ["mode=update", "defense=none"], ["defense=frozen"]):
        run = compose(overrides).config
        own = {f"attack.{key}" for key in type(run.attack.params).model_fields}
        assert set(unused(run)) <= known | own | of_plugins
