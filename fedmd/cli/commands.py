"""Every command with its options and what they mean; what a command does is in the module that it calls."""

from pathlib import Path
from typing import Annotated, Any

import click
import typer

from fedmd.cli.overrides import RunCommand, complete
from fedmd.config import ConfigError

# \b: Click leaves the lines of the paragraph as they are, so they must fit a narrow terminal.
_HELP = """Federated streaming learning under accumulative poisoning, defended by Memorization Discrepancy.

\b
Settings are Hydra overrides; fedmd run --help explains each:
  fedmd run attack.fraction=0.2 defense=recommended hydra.run.dir=/tmp/run
  fedmd run resume=/tmp/run         goes on with a run that was killed
  fedmd run --cfg job defense=at    prints the configuration and stops
  fedmd run -m attack.fraction=0,0.2 defense=none,dsc seed=0,1,2
  fedmd compare experiment=demo hydra.sweep.dir=/tmp/study
  fedmd report /tmp/study --output study.html
"""

typer.core.HAS_RICH = False  # with it, Typer escapes the brackets of plain help, too: \\[required]


class _Argument(typer.core.TyperArgument):
    """An argument that says what it is for: Typer before 0.21, which Flower asks for, loses it under Click 8.5."""

    def __init__(self, *, help: str | None = None, **settings: Any) -> None:
        super().__init__(help=None, **settings)  # with it, Click 8.5 and Typer would both list the arguments
        self.meaning = help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Its name, and what its help says."""
        name, rest = super().get_help_record(ctx) or (self.human_readable_name, "")
        return name, f"{self.meaning or ''}  {rest}".strip()


typer.main.TyperArgument = _Argument  # type: ignore[misc, attr-defined]
app = typer.Typer(
    name="fedmd",
    no_args_is_help=False,
    rich_markup_mode=None,  # plain text: rich is slow to import
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
deployments = typer.Typer(rich_markup_mode=None)
skeletons = typer.Typer(rich_markup_mode=None)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="settings, as Hydra overrides", autocompletion=complete),
]
ConfigDir = Annotated[
    list[Path] | None,
    typer.Option("--config-dir", "-cd", metavar="DIR", help="a folder like conf/ whose files are options, too"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but what is wrong.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="the folder of a run")]


@app.callback(invoke_without_command=True, help=_HELP)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> int:
    """What `fedmd` does without a command, or with --version."""
    if version:
        from fedmd.runs.federation import versions

        print(f"fedmd {versions()['fedmd']}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
    return 0


@app.command(cls=RunCommand)
def run(
    overrides: Overrides = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Sweep over comma-separated values; finished runs are skipped.")
    ] = False,
    cfg: Annotated[
        str | None,
        typer.Option(metavar="[job|hydra|all]", help="Print the composed configuration (job: the run's) and stop."),
    ] = None,
    package: Annotated[str | None, typer.Option("--package", "-p", help="With --cfg: only this part of it.")] = None,
    resolve: Annotated[bool, typer.Option("--resolve", help="With --cfg: interpolations as their values.")] = False,
    config_dir: ConfigDir = None,
    quiet: Quiet = False,
    config_name: Annotated[str | None, typer.Option("--config-name", "-cn", hidden=True)] = None,
    config_path: Annotated[str | None, typer.Option("--config-path", "-cp", hidden=True)] = None,
    info: Annotated[str | None, typer.Option("--info", hidden=True)] = None,
    hydra_help: Annotated[bool, typer.Option("--hydra-help", hidden=True)] = False,
) -> int:
    """One federation, from burn-in to its report. With -m one for every combination of values."""
    from fedmd.cli import run as command

    command.refuse_flags(config_name=config_name, config_path=config_path, info=info, hydra_help=hydra_help)
    said = command.with_config_dirs(overrides or [], config_dir or [])
    if cfg is not None:
        return command.print_configuration(said, cfg, package, resolve=resolve, multirun=multirun)
    if package is not None or resolve:
        raise ConfigError("--package and --resolve go with --cfg.")
    return command.run(said, multirun=multirun, quiet=quiet)


@app.command(cls=RunCommand)
def compare(overrides: Overrides = None, config_dir: ConfigDir = None, quiet: Quiet = False) -> int:
    """A study, experiment=NAME: its arms at every seed. Differences are paired by seed, finished cells are skipped."""
    from fedmd.cli import run as command

    return command.compare(command.with_config_dirs(overrides or [], config_dir or []), quiet=quiet)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="the folder of a run, a sweep or a comparison")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it; else into the folder.")
    ] = None,
) -> int:
    """The report of a run, a sweep or a comparison. It is one file, report.html, and needs no network."""
    from fedmd.report.html.write import write_report
    from fedmd.report.results import ReportError

    try:
        print(f"report: {write_report(path, output)}")
    except (ReportError, OSError) as error:
        raise ConfigError(str(error)) from error
    return 0


@app.command()
def audit(
    run: RunDir,
    client: Annotated[int | None, typer.Option(metavar="ID", help="Only the messages of this client.")] = None,
    export: Annotated[str | None, typer.Option(metavar="csv", help="Write the records as a table.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that nobody touched the trail; exit code 1 where somebody did.")
    ] = False,
    head: Annotated[
        str | None, typer.Option(metavar="N:HASH", help="With --verify: a head noted elsewhere must lie in it.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --verify: the Ed25519 key that must have signed it.")
    ] = None,
) -> int:
    """Who sent what in a run, and what became of it. Its audit trail."""
    from fedmd.cli import audit as command

    return command.audit(run, client=client, export=export, verified=verify, head=head, public_key=public_key)


@app.command()
def status(run: RunDir) -> int:
    """A run in one look. How far it is, its accuracy, what was flagged, who is in quarantine, if its server lives."""
    from fedmd.cli.status import status as command

    return command(run)


@app.command()
def watch(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="the folder of a run, a sweep or a study")],
    serve: Annotated[
        int | None,
        typer.Option("--serve", metavar="PORT", help="As a page for a browser, at this port; 0: a free one."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="With --serve: where it listens. Anyone who reaches it can read it.")
    ] = "127.0.0.1",
) -> int:
    """Runs while they go on, here or as a page. Accuracy, scores, clients, who is suspected, seconds a round."""
    from fedmd.cli.watch import watch as command

    return command(path, serve, host)


@app.command()
def quarantine(
    run: RunDir,
    action: Annotated[str, typer.Argument(metavar="list|show|release|replay", help="what to do")],
    client: Annotated[int | None, typer.Argument(metavar="[CLIENT]", help="for all but list")] = None,
    learn: Annotated[
        bool, typer.Option("--learn", help="With replay: the saved model learns what is accepted.")
    ] = False,
) -> int:
    """Who is in quarantine. What is kept of a client, letting it go, judging it again."""
    from fedmd.cli.quarantine import quarantine as command

    return command(run, action, client, learn=learn)


@app.command()
def calibrate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the file to write")],
    overrides: Overrides = None,
    confidence: Annotated[float, typer.Option(help="that no more than threshold.fpr of clean traffic exceeds")] = 0.95,
    window: Annotated[int | None, typer.Option(metavar="ROUNDS", help="one threshold for every so many rounds")] = None,
) -> int:
    """Thresholds from a clean run, for threshold=calibrated."""
    from fedmd.cli.calibrate import calibrate as command

    return command(file, overrides or [], confidence=confidence, window=window)


@app.command("list")
def list_(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help="attacks, defences, models, ...")
    ] = None,
) -> int:
    """The attacks, defences, models and other plug-ins. A line on each, those of installed packages included."""
    from fedmd.cli.list import list_plugins

    return list_plugins(kinds or [])


@app.command()
def doctor() -> int:
    """What this machine has for fedmd, and what is missing. For which feature, and the command that mends it."""
    from fedmd.cli.doctor import doctor as command

    return command()


app.add_typer(deployments, name="deploy", help="A real federation's folder, or one here to look at.")
app.add_typer(
    skeletons, name="new", help="A working skeleton of your own, with its test. It goes into the current folder."
)


@deployments.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder to make")],
    host: Annotated[str, typer.Option(help="the server's name or address, as nodes reach it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="where nodes connect")] = 9092,
    control_port: Annotated[int, typer.Option(help="where SuperLink listens, on loopback")] = 9093,
    nodes: Annotated[int, typer.Option(help="how many")] = 4,
) -> int:
    """A real federation's folder. It has certificates, keys, services, and a README that says what to do."""
    from fedmd.cli.deploy import init as command

    return command(folder, host=host, port=port, control_port=control_port, nodes=nodes)


@deployments.command()
def demo(folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="where its files go")] = None) -> int:
    """A federation of real processes on loopback, attacked and defended."""
    from fedmd.cli.deploy import demo as command

    return command(folder)


Name = Annotated[str, typer.Argument(metavar="NAME", help="lower case, such as my_attack")]


@skeletons.command("attack")
def new_attack(name: Name) -> int:
    """An attack: NAME.py with a class, and test_NAME.py."""
    from fedmd.cli.new import new

    return new("attack", name)


@skeletons.command("defense", hidden=True)  # as the setting is spelled
@skeletons.command("defence")
def new_defence(name: Name) -> int:
    """A defence: NAME.py with a class, and test_NAME.py. It is of mode=stream."""
    from fedmd.cli.new import new

    return new("defence", name)


@skeletons.command("detector")
def new_detector(name: Name) -> int:
    """A detector: NAME.py with a class, and test_NAME.py."""
    from fedmd.cli.new import new

    return new("detector", name)


@skeletons.command("study")
def new_study(name: Name) -> int:
    """A study: conf/experiment/NAME.yaml, and test_NAME.py. Run it with fedmd compare --config-dir conf."""
    from fedmd.cli.new import new

    return new("study", name)
