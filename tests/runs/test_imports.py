"""What a run must not import: each of these costs a short run a good part of its time."""

import subprocess
import sys

FORBIDDEN = (
    "datasets", "flwr.simulation", "flwr.superlink", "mlxtend", "ray", "scipy", "sklearn", "sqlalchemy", "tensorboard",
    "torch._dynamo", "torchvision",
)  # fmt: skip
PROGRAM = f"""
import sys
from fedmd.cli.main import main
try:
    main(["run", "experiment=smoke", "attack=none", "runtime.progress=false", *sys.argv[1:]])
except SystemExit as end:
    assert end.code == 0, end.code
print("imported:", *(name for name in {FORBIDDEN!r} if name in sys.modules))
"""


def test_a_run_imports_nothing_that_it_does_not_use(tmp_path):
    command = [sys.executable, "-c", PROGRAM, f"hydra.run.dir={tmp_path}/run", f"runtime.cache_dir={tmp_path}/cache"]
    subprocess.run(command, check=True, capture_output=True)  # reads the data, which takes scikit-learn
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "imported:"
