"""Plug-ins: one class in one place is enough, wherever it comes from; and a node takes none that a server names."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from pydantic import Field

from fedmd.attacks.base import Attack, Team
from fedmd.config import ConfigError, Count, RunConfig, Section
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.flower.client.app import app
from fedmd.flower.wire.header import INFO, Request, info_request, read_info, request_content
from fedmd.flower.wire.samples import STREAM
from fedmd.registry import ATTACKS, register_attack
from fedmd.runs.compose import choices, compose
from fedmd.runs.conf import config_dir
from fedmd.runs.inline import server_identity
from fedmd.runs.options import option_files, plugin_sections
from fedmd.types import Phase, StreamBatch
from tests.golden.federate import federate
from tests.golden.runs import RUNS

Make = Callable[..., RunConfig]
SMALL = [override for override in RUNS["stream-dsc-snapshot"] if not override.startswith(("defense", "threshold"))]


class Darken(Attack):
    """Darker images."""

    modes = ("stream",)

    class Params(Section):
        """How much darker."""

        levels: Count = Field(40, description="of 255")

    params: Params

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: Any) -> StreamBatch:
        darker = np.clip(batch.images.astype(int) - self.params.levels, 0, 255)
        return replace(batch, images=darker.astype(np.uint8))


@pytest.fixture
def registered() -> Iterator[None]:
    """While it lasts, `Darken` is an attack."""
    register_attack("darken")(Darken)
    yield
    del ATTACKS._plugins["darken"]


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]


def test_an_attack_is_added_in_exactly_one_place(registered: None, tmp_path: Path) -> None:
    """A class defined in a test runs through a whole federation, and by its factory, and is what it says."""
    named = [*SMALL, "attack=none", "attack.name=darken", "attack.fraction=0.4", "+attack.levels=200"]
    federate([*named, "defense=none"], tmp_path / "named", tmp_path / "cache")
    summary = json.loads((tmp_path / "named" / "summary.json").read_text())
    assert summary["config"]["attack"] == {"name": "darken", "fraction": 0.4, "stop_error_rise": None, "levels": 200}
    assert len(summary["malicious_clients"]) == 2
    factory = ["attack=custom", f"attack.factory={__name__}:Darken", "attack.params.levels=200", "attack.fraction=0.4"]
    federate([*SMALL, *factory, "defense=none"], tmp_path / "custom", tmp_path / "cache")
    federate([*SMALL, "attack=none", "defense=none"], tmp_path / "honest", tmp_path / "cache")
    assert metrics(tmp_path / "named") == metrics(tmp_path / "custom") != metrics(tmp_path / "honest")


def test_nobody_asks_which_attack_it_is() -> None:
    """What differs between attacks is in their classes: no other file compares names, or imports one of them."""
    root = Path(sys.modules["fedmd"].__path__[0])
    for path in root.rglob("*.py"):
        asking = re.findall(r"attack\.name\s*(?:==|!=|in\b|not in\b)", path.read_text())
        catalogue = root / "attacks" / "catalogue"
        imported = "fedmd.attacks.catalogue." in path.read_text()
        assert not asking and (path.parent == catalogue or not imported), path


@pytest.mark.parametrize("name", sorted(option_files()))
def test_the_yaml_of_a_plugin_is_what_its_class_says(name: str) -> None:
    """After a change of a class: python -m fedmd.runs.options."""
    assert (config_dir() / name).read_text() == option_files()[name]


def test_nothing_else_is_in_the_groups_of_plugins() -> None:
    found = {f"{group}/{path.name}" for group in plugin_sections() for path in (config_dir() / group).glob("*.yaml")}
    assert found == set(option_files())


@pytest.mark.parametrize(
    ("name", "problem"), [("darken", "already"), ("custom", "cannot be called"), ("two words", "cannot be called")]
)
def test_names_that_cannot_be(registered: None, name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        register_attack(name)(type("Other", (Attack,), {}))


# -- installed packages ------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with two entry points, of which one cannot be imported."""
    (tmp_path / "theirs.py").write_text(
        "from fedmd.attacks.base import Attack\nfrom fedmd.config import Section\n\n\n"
        'class Reverse(Attack):\n    """Turned round."""\n\n    class Params(Section):\n        k: int = 2\n'
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedmd.attacks]\nreverse = theirs:Reverse\nbroken = no_such_module:X\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    ATTACKS._plugins.pop("reverse", None)
    sys.modules.pop("theirs", None)


def test_an_installed_packages_attack_is_an_option_like_any_other(installed: Path) -> None:
    assert {"reverse", "broken"} <= set(choices("attack"))
    assert compose(["attack=reverse", "attack.k=3", "attack.fraction=0.1"]).config.attack.params.k == 3
    with pytest.raises(ConfigError, match=r"^attack\.k2: unknown key \(did you mean k\?\)"):
        compose(["attack=reverse", "attack.k2=3"])
    with pytest.raises(ConfigError, match=r"^attack\.name: broken, of an installed package, cannot be imported"):
        compose(["attack=broken"])
    assert compose(["attack=alie", "mode=update"]).config.attack.name == "alie"  # a broken package is nobody else's
    listed = {each.name: each for each in ATTACKS.listed()}
    assert (listed["reverse"].origin, listed["reverse"].summary) == ("theirs", "Turned round.")
    assert listed["alie"].origin == "built-in" and "no_such_module" in listed["broken"].summary


# -- a node of somebody else's -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("red_team", [False, True])
@pytest.mark.parametrize("factory", ["os:system", "written_by_the_server:Attack"])
def test_a_node_imports_nothing_that_the_server_names(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, red_team: bool
) -> None:
    """Not even a red team's, which attacks with built-in and installed attacks only."""
    (tmp_path / "written_by_the_server.py").write_text("from pathlib import Path\nPath(__file__ + '.ran').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_parquet(load_federated_data(make_config()).streams.sent(3, 6), tmp_path / "own.parquet")
    node: dict[str, Any] = {
        "client": 3,
        "stream": f"parquet:{tmp_path}/own.parquet",
        "position": str(tmp_path / "position.json"),
        "red-team": red_team,
    }
    mapping = json.loads(make_config().to_json())
    mapping["attack"] = {"name": "custom", "factory": factory, "fraction": 1.0, "params": {"command": "touch"}}

    def ask(content: RecordDict, kind: str) -> Message:
        with server_identity():
            message = Message(content, 1, kind)
            message.metadata.__dict__["_message_id"] = "request"
            return app(message, Context(7, 1, node, RecordDict(), {}))

    if red_team:
        with pytest.raises(ConfigError, match=r"attack\.name: custom was not looked up"):
            ask(info_request(json.dumps(mapping)), INFO)
    else:
        assert read_info(ask(info_request(json.dumps(mapping)), INFO), 5) == ((3,), False)
        assert ask(request_content(Request(json.dumps(mapping), 0, (3,))), STREAM).has_content()
    assert "written_by_the_server" not in sys.modules
    assert not list(tmp_path.glob("*.ran"))
