"""What `flwr run` hands over, and what becomes of it."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedmd import server_app
from fedmd.config import ConfigError, RunConfig
from fedmd.rounds.checkpoint import note_config, noted_config
from fedmd.runs.compose import compose


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, Path, bool]]:
    """What `serve` is asked to do, instead of doing it."""
    calls: list[tuple[RunConfig, Path, bool]] = []

    def serve(grid: object, config: RunConfig, folder: Path, observe: object, *, resume: bool) -> Any:
        calls.append((config, folder, resume))
        return {"audit_head": {"seq": 1, "hash": "0" * 64}}

    monkeypatch.setattr(server_app, "serve", serve)
    return calls


def run(*overrides: str) -> None:
    context: Any = SimpleNamespace(run_config={"overrides": shlex.join(overrides)})
    server_app.main(None, context)  # type: ignore[arg-type]


def test_a_new_run_can_be_resumed_from_its_first_moment(served: list[Any], tmp_path: Path) -> None:
    run("experiment=smoke", "seed=3", f"hydra.run.dir={tmp_path}/new")
    config = compose(["experiment=smoke", "seed=3"]).config
    assert served == [(config, tmp_path / "new", False)]
    assert noted_config(tmp_path / "new") == config
    run(f"resume={tmp_path}/new")
    assert served[1:] == [(config, tmp_path / "new", True)]


def test_a_finished_run_is_left_alone(served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(["experiment=smoke"]).config
    note_config(tmp_path, config)
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "summary.json").write_text(
        json.dumps({"config": json.loads(config.to_json()), "detection": {}, "wall_s": {}})
    )
    run(f"resume={tmp_path}")
    assert served == [] and "nothing to resume" in capsys.readouterr().out


def test_what_cannot_be_resumed_is_said(served: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder of a run"):
        run(f"resume={tmp_path}")
    with pytest.raises(ConfigError, match="leave out 'seed=1'"):
        run(f"resume={tmp_path}", "seed=1")
    assert served == []
