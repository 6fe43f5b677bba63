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
PROGRAM = f"""
import sys
from fedmd.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
print("imported:", *(name for name in {FORBIDDEN!r} if name in sys.modules))
"""


def test_a_run_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    command = [*COMMAND, f"hydra.run.dir={tmp_path}/run", f"runtime.cache_dir={tmp_path}/cache"]
    with pytest.raises(SystemExit) as ended:  # reads the data, which takes scikit-learn
        main(command)
    assert ended.value.code == 0
    said = subprocess.run([sys.executable, "-c", PROGRAM, *command], check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "imported:"
