"""What a run must not import: each of these costs a short run a good part of its time."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedmd.cli.main import main

FORBIDDEN = (
    "datasets", "flwr.simulation", "flwr.superlink", "mlxtend", "ray", "scipy", "sklearn", "sqlalchemy", "sympy",
    "tensorboard", "torch._dynamo", "torchvision",
)  # fmt: skip
COMMAND = ["run", "experiment=smoke", "runtime.progress=false"]
PROGRAM = """
import sys
from fedmd.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
print("imported:", *(name for name in sys.argv[1].split() if name in sys.modules))
"""


def imported(forbidden: tuple[str, ...], command: list[str]) -> str:
    """Those of the `forbidden` modules that `fedmd command...` has imported."""
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, " ".join(forbidden), *command], check=True, capture_output=True, text=True
    ).stdout
    return said.splitlines()[-1].removeprefix("imported:")


def test_a_run_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    command = [*COMMAND, f"hydra.run.dir={tmp_path}/run", f"runtime.cache_dir={tmp_path}/cache"]
    with pytest.raises(SystemExit) as ended:  # reads the data, which takes scikit-learn
        main(command)
    assert ended.value.code == 0
    assert imported(FORBIDDEN, command) == ""
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("command", ["status", "watch", "audit", "report"])
def test_a_wrong_folder_is_said_before_torch_is_imported(command: str, tmp_path: Path) -> None:
    """It takes seconds."""
    assert imported(("torch",), [command, str(tmp_path / "nowhere")]) == ""
