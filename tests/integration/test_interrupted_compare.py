"""A study over several attacks that is interrupted, killed and started again, against one that was left in peace."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.command import fedmd, session

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("compare")]
ARMS = {
    "no_attack": ["attack=none"],
    "accumulative": ["attack.radius=0.1"],
    "label_flip": ["attack=label_flip"],
    "backdoor": ["attack=backdoor"],
}
ATTACKED = ("accumulative", "label_flip", "backdoor")


def compare(folder: Path, cache: Path) -> list[str]:
    """`fedmd compare` of ARMS into `folder`."""
    arms = ",".join(f"{arm}:{overrides}" for arm, overrides in ARMS.items())
    overrides = ["experiment=smoke", "defense=none", "~compare.arms", f"+compare.arms={{{arms}}}", "compare.seeds=[0]"]
    overrides += [f"hydra.sweep.dir={folder}", "runtime.device=cpu", f"runtime.cache_dir={cache}"]
    return ["compare", *overrides, "runtime.engine=inline"]


def until_next_cell(process: subprocess.Popen[str]) -> list[str]:
    """The lines printed up to the first finished cell."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("["):
            return lines
    raise AssertionError(f"no cell was finished: {lines}")


def finished_cells(folder: Path) -> dict[Path, int]:
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in sorted(folder.rglob("summary.json"))}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "wall_s"}
    return value


@pytest.fixture(scope="module")
def in_peace(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder after one run from start to end."""
    folder = tmp_path_factory.mktemp("peace") / "study"
    done = fedmd(*compare(folder, cache), cwd=folder.parent)
    assert done.code == 0, done.err
    assert "4 cells, 0 finished before" in done.out
    return folder


def test_interrupting_loses_at_most_the_cell_under_way(in_peace: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with session(*compare(folder, cache)) as process:
        until_next_cell(process)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does, to the workers too
        _, err = process.communicate(timeout=200)
        assert process.returncode == 130
        assert "interrupted; finished runs are kept" in err and "Traceback" not in err
    first = finished_cells(folder)
    assert 1 <= len(first) < 4

    with session(*compare(folder, cache)) as process:
        lines = until_next_cell(process)
        assert f"4 cells, {len(first)} finished before" in "\n".join(lines)
        process.kill()  # no chance to tidy up
        process.wait(timeout=200)
    second = finished_cells(folder)
    assert len(first) < len(second) < 4 and first.items() <= second.items()

    done = fedmd(*compare(folder, cache), cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"4 cells, {len(second)} finished before" in done.out
    assert second.items() <= finished_cells(folder).items()
    study, expected = (json.loads((where / "comparison.json").read_text()) for where in (folder, in_peace))
    assert without_times(study) == without_times(expected)
    for cell in finished_cells(in_peace):
        written = [
            [without_times(json.loads(line)) for line in (where / cell).with_name("metrics.jsonl").open()]
            for where in (folder, in_peace)
        ]
        assert written[0] == written[1]


def test_the_worst_case_over_attacks_has_its_column(in_peace: Path) -> None:
    comparison = json.loads((in_peace / "comparison.json").read_text())
    arms = comparison["arms"]
    assert {arms[arm]["info"]["defense"] for arm in ARMS} == {"accumulative"}  # one defence, called after an arm
    assert [arm for arm in ARMS if arms[arm]["info"]["attacked"]] == list(ATTACKED)
    finals = {arm: arms[arm]["accuracy"]["final"]["mean"] for arm in ATTACKED}
    (worst,) = comparison["worst"].values()
    assert worst["mean"] == min(finals.values()) == finals[worst["arm"]]
    assert (arms["no_attack"]["trigger_drop"]["n"], arms["backdoor"]["trigger_drop"]["n"]) == (0, 1)

    lines = (in_peace / "table.md").read_text().splitlines()
    (at,) = [i for i, line in enumerate(lines) if "| worst" in line]  # the arms, below the differences
    header, _, *rows = lines[at : at + 2 + len(ARMS)]
    table = {cells[0]: cells for cells in ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)}
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert list(table) == list(ARMS)
    assert {cells[columns.index("worst")] for cells in table.values()} == {f"{100 * worst['mean']:.1f}"}
    success = {arm: cells[columns.index("attack success")] for arm, cells in table.items()}
    rate = arms["backdoor"]["attack_success"]["final"]["mean"]
    assert success == {**dict.fromkeys(ARMS, "–"), "backdoor": f"{100 * rate:.1f}"}
