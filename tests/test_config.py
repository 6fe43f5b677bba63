"""The schema: what it reads back, what it refuses, and in which words."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.config import ConfigError, RunConfig
from fedmd.registry import load, resolving

Make = Callable[..., RunConfig]

COMPLETE: dict[str, Any] = {
    "seed": 3,
    "data": {
        "name": "digits",
        "splits": {"burn_in": 60, "trusted": 20, "attacker": 20, "test": 30},
        "partition": {"name": "iid"},
    },
    "model": {"name": "cnn"},
    "training": {
        "burn_in": {"epochs": 2, "batch_size": 16, "lr": 0.1, "momentum": 0.9, "weight_decay": 0},
        "online": {"lr": 0.02, "momentum": 0.9},
    },
    "stream": {
        "source": "fresh",
        "batch_size": 4,
        "clean_rounds": 2,
        "accumulative_rounds": 3,
        "trigger_rounds": 1,
        "recovery_rounds": 5,
    },
    "attack": {"name": "accumulative", "fraction": 0.5},
    "defense": {"name": "dsc"},
    "threshold": {"name": "quantile"},
    "history": {"name": "snapshot", "epoch": 2},
    "federation": {"clients": 5},
    "runtime": {"device": "cpu", "precision": "fp32", "channels_last": False, "threads": 1},
}


CUSTOM = "fedmd.attacks.catalogue.noise:Noise"


def changed(dotted: str, value: Any) -> dict[str, Any]:
    """COMPLETE with one dotted key set, or removed where `value` is `...`."""
    mapping = copy.deepcopy(COMPLETE)
    *sections, key = dotted.split(".")
    target = mapping
    for section in sections:
        target = target[section]
    if value is ...:
        del target[key]
    else:
        target[key] = value
    return mapping


def refusal(dotted: str, value: Any) -> str:
    """The sentence that refuses `dotted=value`; it must be one sentence of one line."""
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(changed(dotted, value))
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and not sentence.endswith(".."), sentence
    return sentence


def test_json_round_trip() -> None:
    config = RunConfig.parse(changed("attack.stop_error_rise", 0.02))
    text = config.to_json()
    assert RunConfig.parse(text) == config
    assert RunConfig.parse(text).to_json() == text  # is_finished compares this text: it must be stable
    attack = json.loads(text)["attack"]
    assert (attack["name"], attack["fraction"], attack["stop_error_rise"]) == ("accumulative", 0.5, 0.02)
    assert (attack["variant"], attack["trigger"], attack["gamma"]) == ("reg", None, 1.0)  # defaults are written out


def test_trim_goes_by_the_loss_unless_told() -> None:
    assert RunConfig.parse(changed("defense", {"name": "trim"})).defense.detector == "current_loss"
    assert RunConfig.parse(changed("defense", {"name": "trim", "detector": "lid"})).defense.detector == "lid"
    assert RunConfig.parse(changed("defense", {"name": "drop"})).defense.detector == "discrepancy"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("attack.frction", 0.2, ["attack.frction", "unknown key", "fraction", "stop_error_rise"]),
        ("data.splits.test", float("inf"), ["data.splits.test", "a number of samples, or a share", "not inf"]),
        ("data.splits.tst", 1, ["data.splits.tst", "burn_in", "trusted", "attacker", "test"]),
        ("training.burn_in.epoch", 1, ["training.burn_in.epoch", "epochs"]),
        ("sed", 1, ["sed:", "seed", "federation"]),
        ("attack.name", "flip", ["attack.name", "'flip'", "accumulative, alie, backdoor", "trigger_only or custom"]),
        ("attack", {"name": "backdoor", "patch_size": 0}, ["attack.patch_size", "1", "not 0"]),
        ("attack", {"name": "backdoor", "target": -1}, ["attack.target", "0", "not -1"]),
        ("attack.variant", "both", ["attack.variant", "'both'", "normal, second or reg"]),
        # what the chosen attack does not have, and what it has in the other mode
        (
            "attack",
            {"name": "noise", "steps": 3},
            ["attack.steps: unknown key", "allowed here: name, fraction", "radius"],
        ),
        ("attack", {"name": "none", "radius": 0.3}, ["attack.radius: unknown key", "fraction"]),
        ("attack.scale", 2, ["attack.scale: is for mode=update"]),
        ("attack.knowledge", "all", ["attack.knowledge: is for mode=update"]),
        ("attack.factory", "os:system", ["attack.factory: is for name=custom"]),
        ("attack", {"name": "custom"}, ["attack.factory", "package.module:name"]),
        ("attack", {"name": "custom", "factory": "no_such_module:X"}, ["attack.factory: cannot import no_such_module"]),
        ("attack", {"name": "custom", "factory": "os:nothing"}, ["attack.factory: os has no nothing"]),
        (
            "attack",
            {"name": "custom", "factory": "os:system"},
            ["attack.factory: os:system", "fedmd.attacks.base.Attack"],
        ),
        ("attack", {"name": "custom", "factory": CUSTOM, "radius": 0.1}, ["attack.radius: unknown key", "params"]),
        ("attack", {"name": "custom", "factory": CUSTOM, "params": {"radios": 1}}, ["attack.params.radios", "radius"]),
        ("attack", {"name": "custom", "factory": CUSTOM, "params": {"radius": 2}}, ["attack.params.radius", "not 2"]),
        ("attack", {"name": "trigger_only", "stop_error_rise": 0.1}, ["attack.stop_error_rise", "null"]),
        ("defense.name", "dcs", ["defense.name", "'dcs'", "dsc_published, frozen, none, recommended, trim or custom"]),
        ("stream.source", None, ["stream.source", "fresh or published_replay"]),
        ("federation.clients", ..., ["federation.clients", "required"]),
        ("data", ..., ["data:", "required"]),
        ("data", 5, ["data:", "5"]),
        ("federation.clients", 0, ["federation.clients", "1", "not 0"]),
        ("federation.clients", "many", ["federation.clients", "integer", "'many'"]),
        ("federation.clients", 2.5, ["federation.clients", "integer", "2.5"]),
        ("attack.fraction", 1.5, ["attack.fraction", "1", "not 1.5"]),
        ("threshold.fpr", -0.1, ["threshold.fpr", "0", "not -0.1"]),
        ("training.online.lr", 0, ["training.online.lr", "greater than 0"]),
        ("training.online.lr", float("nan"), ["training.online.lr", "finite"]),
        ("threshold", {"name": "fixed", "value": float("inf")}, ["threshold.value", "finite"]),
        ("history", {"name": "ema", "decay": 1.0}, ["history.decay", "less than 1"]),
        ("history.decay", 0.9, ["history.decay", "unknown key; allowed here: name, epoch"]),
        ("defense.detector", "lidd", ["defense.detector", "'lidd'", "kernel_density, lid, mahalanobis"]),
        (
            "defense",
            {"name": "drop", "detector": "lid", "detector_params": {"neighbours": 0}},
            ["defense.detector_params.neighbours", "greater than or equal to 1"],
        ),
        ("seed", -1, ["seed", "0", "not -1"]),
        ("runtime.channels_last", "perhaps", ["runtime.channels_last", "boolean"]),
        # between two settings: the sentence begins with the key, too
        ("federation.clients_per_round", 6, ["federation.clients_per_round", "at most", "5"]),
        ("federation.nodes", 6, ["federation.nodes", "at most", "5"]),
        ("history.epoch", 3, ["history.epoch", "between 1 and", "2", "not 3"]),
        ("data.partition", {"name": "dirichlet"}, ["data.partition.alpha", "positive"]),
        ("data.name", "parquet", ["data.path", "Parquet"]),
    ],
)
def test_every_error_is_one_sentence_with_the_key_and_what_is_allowed(key: str, value: Any, words: list[str]) -> None:
    sentence = refusal(key, value)
    assert sentence.startswith(words[0]), sentence
    assert all(word in sentence for word in words), sentence


def test_a_run_has_at_least_one_round() -> None:
    empty = dict.fromkeys(("clean_rounds", "accumulative_rounds", "trigger_rounds", "recovery_rounds"), 0)
    sentence = refusal("stream", {**COMPLETE["stream"], **empty})
    assert sentence.startswith("stream.clean_rounds")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '"text"'])
def test_text_that_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(text)
    assert str(caught.value).startswith("the configuration")
    assert "\n" not in str(caught.value)


def test_values_do_not_change_after_validation() -> None:
    config = RunConfig.parse(COMPLETE)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 4  # type: ignore[misc]


def test_derived_values() -> None:
    config = RunConfig.parse(COMPLETE)
    assert config.stream.rounds == 2 + 3 + 1 + 5
    assert (config.federation.node_count, config.federation.sampled_clients) == (5, 5)
    smaller = RunConfig.parse(changed("federation", {"clients": 5, "nodes": 2, "clients_per_round": 3}))
    assert (smaller.federation.node_count, smaller.federation.sampled_clients) == (2, 3)


@settings(deadline=None, derandomize=True)
@given(value=st.floats(allow_nan=True, allow_infinity=True))
@pytest.mark.parametrize("key", ["attack.fraction", "threshold.fpr", "defense.radius", "training.online.momentum"])
def test_shares_are_exactly_the_closed_unit_interval(key: str, value: float) -> None:
    if 0 <= value <= 1:
        section, name = key.rsplit(".", 1)
        parsed = RunConfig.parse(changed(key, value)).model_dump()
        for part in section.split("."):
            parsed = parsed[part]
        assert parsed[name] == value
    else:
        assert refusal(key, value).startswith(key)


@settings(deadline=None, derandomize=True)
@given(clients=st.integers(-3, 12), per_round=st.integers(-3, 12))
def test_no_more_clients_a_round_than_there_are(clients: int, per_round: int) -> None:
    mapping = changed("federation", {"clients": clients, "clients_per_round": per_round})
    if 1 <= per_round <= clients:
        assert RunConfig.parse(mapping).federation.sampled_clients == per_round
    else:
        with pytest.raises(ConfigError, match=r"^federation\.clients"):
            RunConfig.parse(mapping)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attack.name": "alie"}, ["attack.name: alie is for mode=update"]),
        ({"defense.name": "md_screen"}, ["defense.name: discrepancy_screening is for mode=update"]),
        ({"history.name": "lag_and_start"}, ["history.name: lag_and_start is for mode=update"]),
        ({"mode": "update", "defense.name": "dsc"}, ["defense.name: dsc is for mode=stream"]),
        ({"mode": "update", "defense.name": "clip"}, ["defense.name: clip is for mode=stream"]),
        ({"mode": "update", "defense.name": "trim"}, ["defense.name: trim is for mode=stream"]),
        (
            {"mode": "update", "quarantine": {"name": "evidence"}},
            ["quarantine.name: evidence comes from the screening"],
        ),
        ({"mode": "update", "attack.name": "noise"}, ["attack.name: noise is for mode=stream"]),
        (
            {"mode": "update", "attack": {"name": "accumulative", "stop_error_rise": 0.1}},
            ["attack.stop_error_rise: is for mode=stream"],
        ),
        ({"mode": "update", "attack": {"name": "accumulative", "radius": 0.1}}, ["attack.radius: is for mode=stream"]),
        ({"mode": "update", "stream.source": "published_replay"}, ["stream.source: published_replay is for"]),
        (
            {"mode": "update", "strategy": {"name": "bulyan", "malicious_share": 0.2}},
            ["bulyan needs 4 f + 3", "f = 1"],
        ),
    ],
)
def test_what_belongs_to_the_other_mode_is_refused(make_config: Any, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_plugins_settings_are_its_own_and_stay_flat() -> None:
    config = RunConfig.parse(changed("attack", {"name": "noise", "radius": 0.1}))
    assert config.attack.params.model_dump() == {"radius": 0.1}
    assert json.loads(config.to_json())["attack"] == {
        "name": "noise",
        "fraction": 0.2,
        "stop_error_rise": None,
        "radius": 0.1,
    }
    own = RunConfig.parse(changed("attack", {"name": "custom", "factory": CUSTOM, "params": {"radius": 0.1}}))
    assert own.attack.params == config.attack.params and RunConfig.parse(own.to_json()) == own


def test_without_looking_up_a_plugin_nothing_is_imported_and_what_came_stays(tmp_path: Path) -> None:
    (tmp_path / "written_on_import.py").write_text("from pathlib import Path\nPath('touched').touch()\n")
    attack = {"name": "custom", "factory": "written_on_import:Attack", "params": {"k": 3}}
    program = (
        "import sys; from fedmd.config import RunConfig\n"
        "config = RunConfig.parse_unresolved(sys.argv[1])\n"
        "assert 'torch' not in sys.modules and 'written_on_import' not in sys.modules\n"
        "print(config.to_json())"
    )
    text = json.dumps(changed("attack", attack))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-c", program, text], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["attack"] == {**attack, "fraction": 0.2, "stop_error_rise": None}
    assert not (tmp_path / "touched").exists()


def test_a_factory_is_imported_only_where_that_is_allowed() -> None:
    attack = {"name": "custom", "factory": "antigravity_of_the_server:make"}
    with resolving("installed"):
        config = RunConfig.parse(changed("attack", attack))  # a node may have no use for the attack
        with pytest.raises(ConfigError, match=r"attack\.name: custom was not looked up"):
            config.attack.make()
        assert RunConfig.parse(COMPLETE).attack.make().name == "accumulative"
        with pytest.raises(ConfigError, match="names code to import"):
            load("os:system", "attack.factory")
    assert "antigravity_of_the_server" not in sys.modules
