"""`fedmd deploy`: prepare a real federation, or see one run on this machine."""

import signal
import sys
from datetime import datetime
from pathlib import Path

from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.narrator import Narrator


def init(folder: Path, *, host: str, port: int, control_port: int, nodes: int) -> int:
    """Always 0. Raises ConfigError for what makes no federation."""
    files = init_folder(folder, Plan(host, port, nodes, control_port))
    print(f"{len(files)} files; begin with {folder / 'README.md'}")
    return 0


def demo(folder: Path | None) -> int:
    """Exit code 1 when it failed."""
    from fedmd.deploy.processes import ProcessError

    folder = folder or Path("outputs/deployment-demo", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # unwinds, so that all processes end
    try:
        with Narrator(lambda text: print(text, flush=True)) as narrator:
            narrator.begin("starting: reading PyTorch and Flower")
            from fedmd.deploy.demo import demo as run_demo  # slow to import; somebody watches already

            run_demo(folder.absolute(), narrator)
    except ProcessError as error:
        print(f"fedmd deploy demo: {error}\nlogs: {folder / 'logs'}", file=sys.stderr)
        return 1
    return 0
