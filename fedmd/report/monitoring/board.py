"""What the terminal shows of runs that go on, drawn again and again: one run in full, or several, a line each."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedmd.types import Action, RoundReport, Stage

_BARS = "▁▂▃▄▅▆▇█"
_SPREAD = 0.05  # accuracies that differ by less do not fill the sparkline's height
_SUSPECTS = 4
_RECENT = 20  # rounds that the seconds a round are the mean of


@dataclass
class Track:
    """One run: how far it is, and what its rounds have brought."""

    name: str
    rounds: int
    began: float
    stage: Stage = field(default_factory=lambda: Stage("starting"))
    phase: str = ""
    done: int = 0
    first_round: float | None = None  # when its rounds began
    last_round: float = 0.0
    took: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    corrected: float = 0.0
    rejected: float = 0.0
    refused: int = 0
    refusal: str = ""
    sent: Counter[int] = field(default_factory=Counter)  # samples, by client
    flagged: Counter[int] = field(default_factory=Counter)  # of them corrected or rejected
    quarantined: tuple[int, ...] = ()

    @property
    def share(self) -> float:
        """Of its rounds that are over."""
        return self.done / self.rounds

    def suspects(self) -> str:
        """Whose samples were flagged most, and who was in quarantine in the latest round."""
        shares = {client: flagged / self.sent[client] for client, flagged in self.flagged.items()}
        most = sorted(shares, key=lambda client: (-shares[client], client))[:_SUSPECTS]
        told = ", ".join(f"{client} ({100 * shares[client]:.0f} %)" for client in most)
        inside = ", ".join(map(str, self.quarantined[:_SUSPECTS])) + (", ..." if self.quarantined[_SUSPECTS:] else "")
        return (f"flagged most {told}" if told else "") + (f"  [red]in quarantine {inside}[/red]" if inside else "")

    def at(self) -> str:
        """Where it is."""
        if self.phase:
            return f"{self.phase} {self.done}/{self.rounds}"
        return f"{self.stage.name} {self.stage.done}/{self.stage.steps}" if self.stage.steps else self.stage.name


class Board:
    """All there is to show; `clock` gives seconds. Rich draws it as wide as the terminal is at that moment."""

    def __init__(self, title: str, clock: Callable[[], float]) -> None:
        self.doing = "loading libraries"
        self.of = 1
        self.before = self.finished = self.failed = 0
        self._title, self._clock = title, clock
        self._began = self._counted_from = clock()
        self._tracks: dict[str, Track] = {}

    def begin(self, names: Sequence[str], before: int) -> None:
        """So many runs are to come, and `before` were finished already."""
        self.of, self.before, self.finished, self.failed = len(names) + before, before, 0, 0
        self._counted_from = self._clock()

    @property
    def is_over(self) -> bool:
        """Whether every run is finished or given up."""
        return self.before + self.finished + self.failed >= self.of

    def stage(self, name: str, rounds: int, stage: Stage) -> None:
        """The run `name`, of so many rounds, prepares them."""
        track = self._tracks.get(name)
        if track is None:
            track = self._tracks[name] = Track(name, rounds, self._clock())
        track.stage = stage
        track.first_round = track.last_round = self._clock()

    def round(self, name: str, rounds: int, report: RoundReport) -> None:
        """A round of it is over."""
        now = self._clock()
        track = self._tracks.setdefault(name, Track(name, rounds, now, first_round=now, last_round=now))
        track.took = [*track.took, now - track.last_round][-_RECENT:]
        track.last_round = now
        track.done, track.phase = report.round + 1, report.phase
        if report.accuracy is not None:
            track.accuracy.append(report.accuracy)
        track.corrected, track.rejected = (report.verdicts.share(a) for a in (Action.CORRECTED, Action.REJECTED))
        refused = [item for item in report.rejections if item.quarantined_since is None]
        track.refused += len(refused)
        if refused:
            track.refusal = f"client {refused[-1].client}: {refused[-1].reason}"
        track.sent.update(report.clients.tolist())
        track.flagged.update(report.clients[report.verdicts.actions != Action.ACCEPTED].tolist())
        track.quarantined = report.quarantined

    def over(self, name: str, *, failed: bool, again: bool = False) -> float:
        """It is finished, or failed, perhaps to begin again. The seconds it took."""
        track = self._tracks.get(name)
        if self.of > 1 or again:
            self._tracks.pop(name, None)
        self.finished += not failed
        self.failed += failed and not again
        return 0.0 if track is None else self._clock() - track.began

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many lines as there is room for."""
        width, height = options.max_width, console.size.height
        if self.of == 1:
            yield self._one(width)
        else:
            yield self._several(width, max(1, height - 3))

    def _one(self, width: int) -> Group:
        track = next(iter(self._tracks.values()), None)
        head = _line(f"[bold]{_escaped(self._title)}[/bold]", duration(self._clock() - self._began))
        if track is None or not track.done:
            doing = self.doing if track is None else track.at()
            share = None if track is None or not track.stage.steps else track.stage.done / track.stage.steps
            return Group(head, *_bar(doing, share, width))
        left = (track.rounds - track.done) * fmean(track.took)
        pace = f"{fmean(track.took):.2g} s a round"
        if left:
            pace += f", {duration(left)} to go"
        lines = Table.grid(padding=(0, 2))
        lines.add_column(style="dim", no_wrap=True, min_width=len("accuracy"))
        lines.add_column(no_wrap=True, overflow="ellipsis")
        bar = Table.grid(padding=(0, 2))
        for width_of_it in (None, 18, None):
            bar.add_column(no_wrap=True, min_width=width_of_it)
        bar.add_row(
            ProgressBar(track.rounds, track.done, width=max(8, min(24, width - 60))), track.at(), f"[dim]{pace}"
        )
        lines.add_row("rounds", bar)
        if track.accuracy:
            line = sparkline(track.accuracy, max(8, min(60, width - 24)))
            lines.add_row("accuracy", f"[cyan]{line}[/cyan] {100 * track.accuracy[-1]:.1f} %")
        shares = f"corrected {100 * track.corrected:.0f} %  rejected {100 * track.rejected:.0f} %"
        if track.refused:
            shares += f"  [yellow]messages refused {track.refused}[/yellow], last of {_escaped(track.refusal)}"
        lines.add_row("samples", shares)
        if suspects := track.suspects():
            lines.add_row("clients", suspects)
        return Group(head, lines)

    def _several(self, width: int, height: int) -> Group:
        running = list(self._tracks.values())
        told = [f"{self.before + self.finished} of {self.of} done", f"{len(running)} running"]
        if self.failed:
            told.append(f"[red]{self.failed} failed[/red]")
        gone = self._clock() - self._counted_from
        units = self.finished + self.failed + sum(track.share for track in running)
        left = (self.of - self.before - units) * gone / units if units >= 0.5 else None  # too soon to tell
        times = duration(self._clock() - self._began) + (f", {duration(left)} to go" if left else "")
        head = _line(f"[bold]{', '.join(told)}[/bold]  [dim]{_escaped(self._title)}[/dim]", times)
        if not running:
            return Group(head, Text(f"  {self.doing}", style="dim", overflow="ellipsis", no_wrap=True))
        spark = max(0, min(40, width - 66))
        lines = Table.grid(padding=(0, 2), expand=False)
        lines.add_column(no_wrap=True, overflow="ellipsis", max_width=max(12, width - spark - 38))
        lines.add_column(no_wrap=True, min_width=18)
        lines.add_column(no_wrap=True)
        shown = running if len(running) <= height else running[: height - 1]
        for track in shown:
            accuracy = ""
            if track.accuracy:
                line = f"[cyan]{sparkline(track.accuracy, spark)}[/cyan] " if spark else ""
                accuracy = f"{line}{100 * track.accuracy[-1]:5.1f} %"
            lines.add_row(f"  {_escaped(track.name)}", f"[dim]{track.at()}[/dim]", accuracy)
        more = [Text(f"  and {len(running) - len(shown)} more", style="dim")] if len(shown) < len(running) else []
        return Group(head, lines, *more)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars, from the lowest of them to the highest; small differences stay small."""
    shown = values[-width:]
    low = min(shown)
    spread = max(max(shown) - low, _SPREAD)
    return "".join(_BARS[min(int((value - low) / spread * len(_BARS)), len(_BARS) - 1)] for value in shown)


def duration(seconds: float) -> str:
    """As 0:07, 12:30 or 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _line(left: str, right: str) -> Table:
    """Text to the left, cut off where it must be, and text to the right."""
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(left, f"[dim]{right}[/dim]")
    return line


def _bar(doing: str, share: float | None, width: int) -> list[Table]:
    line = Table.grid(padding=(0, 2))
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(no_wrap=True)
    bar = "" if share is None else ProgressBar(1.0, share, width=max(8, min(24, width - 40)))
    line.add_row(bar, doing) if share is not None else line.add_row(f"[dim]{_escaped(doing)}[/dim]", "")
    return [line]


def _escaped(text: str) -> str:
    """Without a meaning to Rich's markup."""
    return text.replace("[", r"\[")
