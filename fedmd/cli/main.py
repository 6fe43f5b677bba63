"""The `fedmd` command. What a user can do wrong costs one sentence and exit code 2; a traceback is a bug of ours."""

import os
import signal
import sqlite3
import sys
from collections.abc import Sequence

import click
import typer

from fedmd.cli.commands import app
from fedmd.config import ConfigError
from fedmd.runs.cell import CellsFailed
from fedmd.runs.stopping import Stopped, leave, stopping_on_sigterm


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
    except click.ClickException as error:
        print(f"fedmd: {_sentence(error)}", file=sys.stderr)
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
    if "_FEDMD_COMPLETE" in os.environ:  # the shell asks what a word may become
        app(arguments, prog_name="fedmd")
    command = typer.main.get_command(app)
    asked = ["--help"] if arguments[:1] in ([], ["help"]) else arguments
    try:
        with command.make_context("fedmd", list(asked)) as context:  # its `main` has own ideas of Ctrl-C and of pipes
            return int(command.invoke(context) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code


def _sentence(error: click.ClickException) -> str:
    """Click's complaint in one line, with what the command takes."""
    said = " ".join(error.format_message().split()).rstrip(".").partition(" Did you mean")[0].rstrip(".")
    said = said[0].lower() + said[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return f"{said}."
    command = context.command
    if isinstance(command, click.Group):
        known = ", ".join(command.list_commands(context))
        place = "" if context.parent is None else f"{context.command_path}: "
        return f"{place}{said}; commands: {known}."
    usage = " ".join(context.get_usage().removeprefix("Usage: ").split())
    flags = [option for each in command.params for option in each.opts if not getattr(each, "hidden", True)]
    shown = [flag for flag in flags if flag.startswith("--") or flag == "-m"]
    return f"{context.command_path}: {said}; usage: {usage}, options: {', '.join(shown) or 'none'}."


if __name__ == "__main__":  # python -m fedmd.cli.main
    main()
