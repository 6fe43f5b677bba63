"""The command line. Bad input ends with one sentence on stderr and exit code 2; a traceback is a bug of ours."""

import argparse
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fedmd.config import ConfigError
from fedmd.runs.cell import CellsFailed, Watcher
from fedmd.runs.compose import Composed, choices, compose, expand, groups, resumed_folder
from fedmd.runs.plan import compose_study
from fedmd.runs.stopping import Stopped, leave, stopping_on_sigterm
from fedmd.runs.typed import refuse_unused

_USAGE = """\
fedmd: federated streaming learning under accumulative poisoning, defended by Memorization Discrepancy

  fedmd run [-m] [--cfg] [--quiet] [KEY=VALUE ...]    one federation; -m sweeps over comma-separated values
  fedmd compare [--quiet] experiment=NAME [KEY=VALUE ...]   arms x seeds, side by side; finished cells are skipped
  fedmd report PATH [--output FILE]          report.html of a run, a sweep or a comparison: one file, no network
  fedmd audit RUN_DIR [--client ID] [--export csv] [--verify [--head N:HASH] [--public-key FILE]]   the audit trail
  fedmd quarantine RUN_DIR list | show CLIENT | release CLIENT | replay CLIENT [--learn]
  fedmd calibrate FILE [KEY=VALUE ...]       thresholds from a clean run on your data, for threshold=calibrated
  fedmd deploy init DIR [--host NAME] [--port PORT] [--nodes N]   a real federation's folder; fedmd deploy demo [DIR]
  fedmd list [KIND ...]                      the attacks, defences, detectors, ... there are, with one line on each
  fedmd --version

Settings are Hydra overrides:
  fedmd run attack.fraction=0.2 defense=dsc
  fedmd run attack.fraction=0.2 defense=drop threshold.fpr=0.1 hydra.run.dir=/tmp/run
  fedmd run -m attack.fraction=0,0.1,0.2 defense=none,dsc seed=0,1,2    finished runs are skipped
  fedmd run resume=/tmp/run                  go on with a run that was killed, from its last checkpoint
  fedmd run --cfg defense=at                 print the composed configuration and stop
  fedmd compare experiment=demo 'compare.seeds=[0,1,2,3,4]' hydra.sweep.dir=/tmp/study
  fedmd report /tmp/study --output study.html

Groups and their options:
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `fedmd` command."""
    sys.path.insert(0, os.getcwd())  # as for `python -m`: model.factory may name a module of the current folder
    try:
        with stopping_on_sigterm():
            code = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        sys.exit(code)
    except Stopped:
        leave()
    except BrokenPipeError:  # whoever read along has seen enough: as a tool that SIGPIPE ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (OSError, sqlite3.OperationalError) as error:
        from fedmd.storage import trouble  # NumPy is slow to import

        if (told := trouble(error)) is None:
            raise
        print(f"fedmd: {told}.", file=sys.stderr)
        sys.exit(2)
    except ConfigError as error:
        print(f"fedmd: {error}", file=sys.stderr)
        sys.exit(2)
    except CellsFailed as error:
        print(f"fedmd: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("fedmd: interrupted; finished runs are kept", file=sys.stderr, flush=True)
        os._exit(130)  # Flower runs the server in a thread, which would go on without its clients and call it a run


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help") or {"-h", "--help"} & set(arguments):
        print(_USAGE + "\n".join(f"  {group:<14}{', '.join(choices(group))}" for group in groups()))
        return 0
    if arguments[0] == "--version":
        from fedmd.runs.federation import versions

        print(f"fedmd {versions()['fedmd']}")
        return 0
    commands = {
        "run": _run,
        "compare": _compare,
        "report": _report,
        "audit": _audit,
        "quarantine": _quarantine,
        "calibrate": _calibrate,
        "deploy": _deploy,
        "list": _list,
    }
    if arguments[0] not in commands:
        raise ConfigError(f"{arguments[0]!r} is not a command; commands: {', '.join(commands)}.")
    return commands[arguments[0]](arguments[1:])


def _compare(arguments: list[str]) -> int:
    quiet = "--quiet" in arguments
    arguments = [argument for argument in arguments if argument != "--quiet"]
    if options := [argument for argument in arguments if argument.startswith("-")]:
        raise ConfigError(f"{options[0]}: unknown option; fedmd compare knows --quiet and KEY=VALUE.")
    with _watching("compare", arguments, quiet) as watcher:
        study = compose_study(arguments)
        from fedmd.runs.study import run_study  # Flower and torch are slow to import; somebody watches already

        run_study(study, watcher)
    return 0


def _watching(command: str, arguments: Sequence[str], quiet: bool) -> AbstractContextManager[Watcher]:
    """From the first moment on: even composing the settings of a study takes seconds."""
    from fedmd.runs.progress import watching

    live = not any(argument.lower() == "runtime.progress=false" for argument in arguments)
    return watching(f"fedmd {command} {' '.join(arguments)}", quiet=quiet, live=live)


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="fedmd report", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("path", nargs="*", type=Path)
    parser.add_argument("--output", type=Path)
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError("--output: takes the name of the file to write.") from error
    if unknown:
        raise ConfigError(f"{unknown[0]}: unknown option; fedmd report knows PATH and --output FILE.")
    if len(options.path) != 1:
        raise ConfigError("fedmd report: takes one PATH, the folder of a run, a sweep or a comparison.")
    from fedmd.report.html.write import write_report
    from fedmd.report.results import ReportError

    try:
        print(f"report: {write_report(options.path[0], options.output)}")
    except (ReportError, OSError) as error:
        raise ConfigError(str(error)) from error
    return 0


def _audit(arguments: list[str]) -> int:
    from fedmd.cli.audit import audit

    return audit(arguments)


def _quarantine(arguments: list[str]) -> int:
    from fedmd.cli.quarantine import quarantine

    return quarantine(arguments)


def _deploy(arguments: list[str]) -> int:
    from fedmd.cli.deploy import deploy

    return deploy(arguments)


def _list(arguments: list[str]) -> int:
    from fedmd.cli.list import list_plugins

    return list_plugins(arguments)


def _calibrate(arguments: list[str]) -> int:
    from fedmd.cli.calibrate import calibrate

    return calibrate(arguments)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="fedmd run", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("overrides", nargs="*")
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:  # an option with a value, as in --cfg=job
        raise ConfigError(f"{error}; fedmd run knows -m, --cfg, --quiet and KEY=VALUE.") from error
    if unknown:
        raise ConfigError(f"{unknown[0]}: unknown option; fedmd run knows -m, --cfg, --quiet and KEY=VALUE.")
    if (folder := resumed_folder(options.overrides)) is not None:
        if options.multirun or options.cfg:
            raise ConfigError("resume: takes no -m and no --cfg; the run's settings are in its config.json.")
        with _watching("run", arguments, options.quiet) as watcher:
            from fedmd.runs.launch import resume

            resume(folder, watcher)
        return 0
    if options.cfg:
        print("\n---\n".join(one.job_yaml for one in _composed(options)), end="")
        return 0
    with _watching("run", arguments, options.quiet) as watcher:
        composed = _composed(options)
        from fedmd.runs.launch import launch  # Flower and torch are slow to import; somebody watches already

        launch(composed, watcher, sweep=options.multirun)
    return 0


def _composed(options: argparse.Namespace) -> list[Composed]:
    sweep = expand(options.overrides) if options.multirun else [options.overrides]
    composed = [compose(overrides, sweep=options.multirun) for overrides in sweep]
    refuse_unused(composed, "sweep" if options.multirun else "run")
    return composed
