"""`fedmd deploy`: prepare a real federation, or see one run on this machine."""

import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fedmd.cli.arguments import Arguments
from fedmd.config import ConfigError
from fedmd.deploy.folder import LOOPBACK, Plan, init_folder

USAGE = "init DIR [--host NAME_OR_ADDRESS] [--port PORT] [--control-port PORT] [--nodes N] | demo [DIR]"


def deploy(arguments: Sequence[str]) -> int:
    """Exit code 1 when the demo failed. Raises ConfigError for wrong arguments."""
    parser = Arguments("fedmd deploy", USAGE)
    parser.add_argument("action", choices=["init", "demo"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--control-port", type=int, default=9093)
    parser.add_argument("--nodes", type=int, default=4)
    options = parser.parse_args(arguments)
    if options.action == "demo":
        return _demo(options.folder or Path("outputs/deployment-demo", f"{datetime.now():%Y-%m-%d_%H-%M-%S}"))
    if options.folder is None:
        raise ConfigError(f"fedmd deploy init: takes a DIR; usage: fedmd deploy {USAGE}.")
    files = init_folder(options.folder, Plan(options.host, options.port, options.nodes, options.control_port))
    print(f"{len(files)} files; begin with {options.folder / 'README.md'}")
    return 0


def _demo(folder: Path) -> int:
    from fedmd.deploy.demo import demo
    from fedmd.deploy.processes import ProcessError

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # unwinds, so that all processes end
    try:
        demo(folder.absolute(), lambda text: print(text, flush=True))
    except ProcessError as error:
        print(f"fedmd deploy demo: {error}\nlogs: {folder / 'logs'}", file=sys.stderr)
        return 1
    return 0
