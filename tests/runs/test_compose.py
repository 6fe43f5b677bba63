"""Hydra's side: overrides to configurations, sweeps to lists, run folders, and studies."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fedmd.config import ConfigError, QuarantineConfig, RunConfig, Section
from fedmd.runs.compose import choices, compose, expand, groups
from fedmd.runs.conf import config_dir
from fedmd.runs.options import plugin_sections
from fedmd.runs.plan import compose_study, read_plan
from fedmd.runs.study import arm_infos


def refusal(*overrides: str) -> str:
    """The sentence that refuses these overrides; one line."""
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_valid_and_overrides_reach_the_configuration() -> None:
    assert compose([]).config == RunConfig.parse(compose([]).config.to_json())
    config = compose(["attack.fraction=0.35", "defense=drop", "seed=7", "federation.clients=12"]).config
    assert (config.attack.fraction, config.defense.name, config.seed) == (0.35, "drop", 7)
    assert config.federation.clients == 12


CLASSES = {
    "attack": "fedmd.attacks.catalogue.noise:Noise",
    "defense": "fedmd.defense.catalogue.rejection:Drop",
    "threshold": "fedmd.defense.samples.thresholds:Fixed",
    "history": "fedmd.defense.history:LagHistory",
    "strategy": "fedmd.flower.strategies.catalogue:FedMedianPlugin",
}
NAMED = tuple(CLASSES)


@pytest.mark.parametrize("group", [*NAMED, "training", "stream", "runtime", "local", "screening", "mode"])
def test_every_option_of_a_group_composes(group: str) -> None:
    """Each in the mode it is for; those that both know, in both."""
    for option in choices(group):
        valid, refusals = [], []
        needed = {
            "calibrated": ["threshold.path=some.json"],
            "custom": [f"{group}.factory={CLASSES.get(group)}"],
        }.get(option, [])
        for mode in ("stream", "update"):
            chosen = [f"mode={option}"] if group == "mode" else [f"mode={mode}", f"{group}={option}"]
            try:
                valid.append(compose([*chosen, *needed]))
            except ConfigError as error:
                refusals.append(str(error))
        assert valid and all(sentence.startswith(f"{group}.name: {option} is for mode=") for sentence in refusals)
        if group in NAMED:
            assert all(getattr(composed.config, group).name == option for composed in valid)


def test_the_mode_chooses_a_defence_and_the_user_another() -> None:
    assert (compose([]).config.mode, compose([]).config.defense.name) == ("stream", "dsc")
    update = compose(["mode=update"]).config
    assert (update.mode, update.defense.name, update.strategy.name) == ("update", "discrepancy_screening", "fedavg")
    assert compose(["defense=none", "mode=update", "strategy=krum"]).config.defense.name == "none"


def test_the_table_of_attacks_and_defences() -> None:
    compare = yaml.safe_load((config_dir() / "experiment" / "update_mode.yaml").read_text())["compare"]
    plan = read_plan(None, compare["rows"], compare["columns"])
    assert (len(plan.rows), len(plan.columns), len(plan.arms)) == (12, 11, 132)
    assert plan.arms["krum_alie"].label == "Krum · ALIE" and compare["baseline"] in plan.arms
    config = compose(["experiment=update_mode", *plan.arms["krum_alie"].overrides]).config
    assert (config.mode, config.strategy.name, config.attack.name) == ("update", "krum", "alie")


def test_the_same_defence_on_other_data_is_another_run() -> None:
    study = compose_study(["experiment=update_mode_non_iid"])
    infos = arm_infos(study)
    found = {}
    for distribution in ("dirichlet_0_1", "two_classes"):
        arms = [f"md_screen_{distribution}_{attack}" for attack in ("no_attack", "accumulative_3_norms")]
        (found[distribution],) = {infos[arm].defense for arm in arms}
    assert found["dirichlet_0_1"] != found["two_classes"]


def test_arms_that_are_attacked_alike() -> None:
    infos = arm_infos(compose_study(["experiment=cifar10", "data.path=some.parquet"]))
    alike = {info.attack: [arm for arm in infos if infos[arm].attack == info.attack] for info in infos.values()}
    assert alike["none_phi_1"] == [arm for arm in infos if arm.endswith("phi_1")]
    assert infos["none_phi_1"].attack != infos["none_phi_0_2"].attack


def test_a_defence_brings_its_companions_unless_others_are_chosen() -> None:
    published = compose(["defense=dsc_published"]).config
    assert (published.threshold.name, published.history.name) == ("published", "snapshot")
    other = compose(["defense=dsc_published", "threshold=fixed", "history=lag"]).config
    assert (other.threshold.name, other.history.name) == ("fixed", "lag")
    plain = compose([]).config
    assert (plain.defense.name, plain.threshold.name, plain.history.name) == ("dsc", "quantile", "ema")


def test_groups_are_the_folders_of_conf() -> None:
    folders = {path.name for path in config_dir().iterdir() if path.is_dir()}
    assert set(groups()) == folders
    expected = {"data", "model", "stream", "attack", "defense", "threshold", "history", "federation", "runtime"}
    assert expected <= folders
    defenses = ["at", "clip", "custom", "discrepancy_screening", "drop", "dsc", "dsc_published", "frozen", "none"]
    defenses += ["recommended", "trim"]
    assert choices("defense") == defenses
    for name in sorted({*defenses} - {"custom", "discrepancy_screening"}):
        for key in ("baselines", "rivals"):  # its old name
            assert compose([f"defense={name}", f"defense.{key}=false"]).config.defense.baselines is False
    trim = compose(["defense=trim", "defense.trim_share=0.3"]).config.defense
    assert (trim.detector, trim.params.model_dump()) == ("current_loss", {"trim_share": 0.3})
    assert compose(["defense=clip", "defense.clip_norm=2"]).config.defense.make().clip_norm == 2
    update = compose(["mode=update", "defense=md_screen"]).config.defense  # its old name
    assert update.name == "discrepancy_screening"


def test_two_composed_runs_are_independent() -> None:
    """Hydra's global state must be cleared in between, after errors too."""
    refusal("attack.frction=1")
    assert compose(["seed=1"]).config.seed == 1
    assert compose(["seed=2"]).config.seed == 2


# -- folders ----------------------------------------------------------------------------------------------------


def test_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose([f"hydra.run.dir={tmp_path}/a b".replace(" ", "\\ ")]).folder == tmp_path / "a b"
    monkeypatch.chdir(tmp_path)
    assert compose(["hydra.run.dir=here"]).folder == tmp_path / "here"
    default = compose([]).folder
    assert default.is_absolute() and default.is_relative_to(tmp_path)


def test_sweep_folder_tells_runs_apart(tmp_path: Path) -> None:
    base = [f"hydra.sweep.dir={tmp_path}"]
    folders = [compose([*base, f"seed={seed}", "defense=drop"], sweep=True).folder for seed in (0, 1)]
    assert all(folder.is_relative_to(tmp_path) for folder in folders)
    assert len(set(folders)) == 2
    again = compose([*base, "seed=0", "defense=drop"], sweep=True).folder
    assert again == folders[0]  # or a finished run could not be found again
    assert compose([*base, "seed=0", "hydra.sweep.subdir=mine"], sweep=True).folder == tmp_path / "mine"


def test_hydra_files(tmp_path: Path) -> None:
    overrides = ["seed=5", "attack.fraction=0.4", f"hydra.run.dir={tmp_path}/run"]
    compose(overrides).write_hydra_files()
    written = (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text().splitlines()
    assert written[:2] == ["- seed=5", "- attack.fraction=0.4"]
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "seed: 5" in config and "fraction: 0.4" in config and "hydra:" not in config


def test_relative_paths_are_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes run elsewhere: what is relative to the user's folder must arrive absolute."""
    monkeypatch.chdir(tmp_path)
    config = compose(["runtime.cache_dir=cache", "data=parquet", "data.path='a.parquet,b'"]).config
    assert config.runtime.cache_dir == str(tmp_path / "cache")
    assert config.data.params.path == f"{tmp_path}/a.parquet,{tmp_path}/b"


# -- sweeps -----------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 4), min_size=0, max_size=4))
def test_expand_is_the_cartesian_product_in_order(lengths: list[int]) -> None:
    values = [[f"{10 * place + i}" for i in range(n)] for place, n in enumerate(lengths)]
    overrides = [f"key{place}={','.join(options)}" for place, options in enumerate(values)]
    expected = [
        [f"key{place}={value}" for place, value in enumerate(combination)] for combination in itertools.product(*values)
    ]
    assert expand(overrides) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=range(1,4)", ["seed=1", "seed=2", "seed=3"]),
        ("seed=choice(5,3)", ["seed=5", "seed=3"]),
        ("data.path='a,b'", ["data.path='a,b'"]),
        ("compare.seeds=[0,1]", ["compare.seeds=[0,1]"]),
        ("+extra.key=1,2", ["+extra.key=1", "+extra.key=2"]),
        ("stream=phases", ["stream=phases"]),
    ],
)
def test_expand_forms(override: str, expected: list[str]) -> None:
    assert expand([override]) == [[one] for one in expected]


def test_expanded_texts_with_special_characters_compose() -> None:
    first, second = expand(["data.path='/a b/c','/d=e'", "data=parquet"])
    assert compose(first).config.data.params.path == "/a b/c"
    assert compose(second).config.data.params.path == "/d=e"


def test_globs_are_over_the_options_of_a_group() -> None:
    assert expand(["defense=glob(d*,exclude=[dis*,dsc*])"]) == [["defense=drop"]]
    assert expand(["history=glob([lag,ema])"]) == [["history=ema"], ["history=lag"]]


@pytest.mark.parametrize("override", ["seed=glob(*)", "defense=glob(x*)", "attack.fraction=interval(0,1)"])
def test_sweeps_that_cannot_be_enumerated(override: str) -> None:
    with pytest.raises(ConfigError, match=r"^(seed|defense|attack\.fraction): .*(no option|write some out)"):
        expand([override])


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attack.frction=0.1"], ["attack.frction", "did you mean fraction?", "radius"]),
        (["defence=dsc"], ["defence", "did you mean defense?"]),
        (["atack.fraction=0.1"], ["atack.fraction", "did you mean attack?"]),
        (["foo=1"], ["foo", "allowed here", "federation"]),
        (["+foo=1"], ["foo", "allowed here", "federation"]),
        (["++attack.foo=1"], ["attack.foo", "fraction"]),
        (["~attack.fractin"], ["attack.fractin", "did you mean fraction?"]),
        (["~data"], ["data", "required"]),
        (["a.b=1", "c.d=2"], ["a.b", "unknown key"]),
        (["defense=drop", "defense.fooo=1"], ["defense.fooo", "name"]),
        (
            ["defense=dcs"],
            ["defense", "'dcs'", "discrepancy_screening, drop, dsc, dsc_published, frozen, none, recommended, trim"],
        ),
        (
            ["defense=null"],
            ["defense", "'null'", "discrepancy_screening, drop, dsc, dsc_published, frozen, none, recommended, trim"],
        ),
        (["data=5"], ["data", "'5'", "digits"]),
        (["experiment=smok"], ["experiment", "'smok'", "smoke"]),
        (["model=custom"], ["model.factory", "required"]),
        (["seed=${oops}"], ["seed", "required"]),
        (["hydra.run.dir=${oops}"], ["hydra.run.dir", "required"]),
        (["seed=1,2"], ["seed", "-m"]),
        (["seed 1"], ["'seed 1'", "key=value"]),
        (["seed=[1"], ["'seed=[1'", "key=value"]),
        ([""], ["''", "key=value"]),
        (["=3"], ["."]),
        (["hydra=5"], ["."]),
        (["data=parquet", "data.path=5"], ["data.path", "string"]),
        (["threshold.fpr=2"], ["threshold.fpr", "2"]),
    ],
)
def test_refusals(overrides: list[str], words: list[str]) -> None:
    sentence = refusal(*overrides)
    assert sentence.startswith(words[0]) or words[0] == ".", sentence
    assert all(word in sentence for word in words), sentence


# -- studies ----------------------------------------------------------------------------------------------------


def test_study(tmp_path: Path) -> None:
    study = compose_study(["experiment=smoke", "compare.seeds=[3,1]", f"hydra.sweep.dir={tmp_path}", "model.width=5"])
    assert study.folder == tmp_path
    assert list(study.runs) == ["frozen", "no_attack", "undefended", "dsc", "dsc_no_attack"]
    assert study.plan.arms["dsc_no_attack"].label == "DSC, no attack"
    assert all(list(runs) == [3, 1] for runs in study.runs.values())
    for runs in study.runs.values():
        assert [(run.config.seed, run.config.model.params.width) for run in runs.values()] == [(3, 5), (1, 5)]
    configs = {arm: runs[1].config for arm, runs in study.runs.items()}
    assert [config.defense.name for config in configs.values()] == ["frozen", "none", "none", "dsc", "dsc"]
    attacks = [config.attack.name if config.attack.fraction > 0 else "none" for config in configs.values()]
    assert attacks == ["none", "none", "accumulative", "accumulative", "none"]
    assert (study.baseline, study.frozen) == ("no_attack", "frozen")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["experiment", "smoke"]),
        (["experiment=smoke", "compare=5"], ["experiment"]),
        (["experiment=smoke", "compare.arms=5"], ["compare.arms"]),
        (["experiment=smoke", "+compare.arms={a: null}"], ["compare.arms"]),
        (
            ["experiment=smoke", "+compare.arms={no attack: []}"],
            ["compare.arms", "'no attack'", "ASCII letters"],
        ),
        (["experiment=smoke", "+compare.arms={Dsc: []}"], ["compare.arms", "the id 'dsc' is there twice"]),
        (["experiment=smoke", "+compare.arms={a: ['defense=dcs']}"], ["defense", "'dcs'"]),
        (["experiment=smoke", "compare.seeds=3"], ["compare.seeds"]),
        (["experiment=smoke", "compare.seeds=[]"], ["compare.seeds"]),
        (["experiment=smoke", "compare.seeds=[0,-1]"], ["compare.seeds"]),
        (["experiment=smoke", "hydra.sweep.dir=${oops}"], ["hydra.sweep.dir"]),
        (["experiment=smoke", "compare.baseline=dcs"], ["compare.baseline", "dcs is no arm", "frozen, no_attack"]),
        (["experiment=smoke", "compare.frozen=dcs"], ["compare.frozen", "dcs is no arm"]),
    ],
)
def test_studies_that_cannot_be(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_study(overrides)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("name", ["demo_two_phase", "evidence"])
def test_studies_without_some_of_the_usual_arms(name: str) -> None:
    more = ["data.path=some"] if name == "evidence" else []
    assert len(compose_study([f"experiment={name}", *more]).runs) > 1


@pytest.mark.parametrize("file", sorted((config_dir() / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_experiment_composes(file: Path) -> None:
    own = ["data.path=some"] if "override /data: parquet" in file.read_text() else []
    assert compose([f"experiment={file.stem}", *own])


def test_a_factory_that_is_not_there_is_said_beside_a_presets_settings() -> None:
    said = refusal("experiment=smoke", "model=custom", "model.factory=json:nope")  # whose model.width is another's
    assert said == "model.factory: json has no nope."


def test_an_override_that_an_arm_would_undo_is_refused() -> None:
    for overrides, sentence in (
        (["defense=none"], "defense: the arm 'frozen' sets it in this study; change it there."),
        (["seed=3"], "seed: compare.seeds sets it in this study; change it there."),
    ):
        with pytest.raises(ConfigError) as caught:
            compose_study(["experiment=smoke", *overrides])
        assert str(caught.value) == sentence


def test_studies_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose_study(["experiment=smoke"]).folder == tmp_path / "comparisons" / "smoke"
    assert compose_study(["experiment=demo"]).folder == tmp_path / "comparisons" / "demo"
    assert compose_study(["experiment=smoke", "hydra.sweep.dir=/tmp/x"]).folder == Path("/tmp/x")


# -- every default lives once ------------------------------------------------------------------------------------------


def different(section: type[BaseModel], preset: dict[str, Any], place: str) -> list[str]:
    """Where a preset lacks a key of its section, or has another value than the section's default."""
    found = []
    for key, field in section.model_fields.items():
        value, inner = preset.get(key, ...), field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, dict):
            found += different(inner, value, f"{place}.{key}")
        elif value is ... or (not field.is_required() and value != field.default):
            found.append(f"{place}.{key}")
    return found + [f"{place}.{key}" for key in preset if key not in section.model_fields]


def test_presets_and_the_schema_say_the_same() -> None:
    """A group that is no plug-in's: its default option has every key, with the default that Python users get."""
    defaults = yaml.safe_load((config_dir() / "config.yaml").read_text())["defaults"]
    chosen = {group: option for entry in defaults if isinstance(entry, dict) for group, option in entry.items()}
    conditional = {
        "screening.lower",
        "screening.upper",
        *(f"quarantine.{key}" for key in QuarantineConfig.model_fields),
    }
    checked = 0
    for group, field in RunConfig.model_fields.items():
        section = field.annotation
        if group in plugin_sections() or not (isinstance(section, type) and issubclass(section, Section)):
            continue
        if group not in NAMED:  # those become plug-ins
            preset = yaml.safe_load((config_dir() / group / f"{chosen[group]}.yaml").read_text())
            assert set(different(section, preset, group)) - conditional == set()
            checked += 1
        for other in choices(group):
            preset = yaml.safe_load((config_dir() / group / f"{other}.yaml").read_text())
            assert set(preset) <= set(section.model_fields), (group, other)
    assert checked >= 9


# -- old names, and presets made for another option --------------------------------------------------------------------


def test_old_names_are_still_read() -> None:
    config = compose(["mode=update", "defense=md_screen"]).config
    assert config == compose(["mode=update", "defense=discrepancy_screening"]).config
    assert config.defense.name == "discrepancy_screening"
    assert compose(["defense=drop", "defense.rivals=false"]).config.defense.baselines is False
    assert "md_screen" not in choices("defense")


def test_a_presets_setting_for_another_option_is_left_out_and_a_users_refused() -> None:
    """experiment=stationary sets threshold.fpr, for its quantile."""
    config = compose(["experiment=stationary", "threshold=published"]).config
    assert config.threshold.params.model_dump() == {"start": 0.5, "slope": 0.02}
    sentence = refusal("experiment=stationary", "threshold=published", "threshold.fpr=0.2")
    assert sentence == "threshold.fpr: unknown key; allowed here: name, start, slope."


def test_a_factorys_settings_need_no_plus() -> None:
    factory = "attack.factory=fedmd.attacks.catalogue.noise:Noise"
    assert compose(["attack=custom", factory, "attack.params.radius=0.1"]).config.attack.params.radius == 0.1
    assert refusal("attack=custom", factory, "attack.params.radios=1").startswith("attack.params.radios: unknown key")
    assert refusal("defense.detector_params.k=3").startswith("defense.detector_params.k: unknown key")
