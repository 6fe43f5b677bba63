"""What a page is made of, before it is HTML: cards, figures, tables, pictures, in sections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from fedmd.report.table import Estimate, Row, layout
from fedmd.types import Json


@dataclass(frozen=True)
class Card:
    """A headline number, what it is, and one line about it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure: safe inline SVG, whose aria-label already says what it shows."""

    kind: ClassVar[str] = "plot"
    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Picture:
    """A row of images as a data URI, and the text for those who do not see it."""

    label: str
    uri: str
    alt: str
    width: int  # pixels
    height: int


@dataclass(frozen=True)
class Pictures:
    """Rows of images, one below the other."""

    kind: ClassVar[str] = "pictures"
    title: str
    rows: tuple[Picture, ...]
    caption: str


@dataclass(frozen=True)
class Table:
    """Cells as text; `numeric` columns are set to the right. The first column names the rows."""

    kind: ClassVar[str] = "table"
    caption: str
    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    folded: str = ""  # the words to click for it, when it starts out of sight
    heat: list[list[float | None]] | None = None  # of a heat map: how much colour each cell has, 0 to 1
    links: list[str] | None = None  # where the first cell of each row leads

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        caption: str,
        folded: str = "",
        *,
        heat: bool = False,
        links: list[str] | None = None,
    ) -> "Table":
        """From the same rows as terminal, Markdown and LaTeX tables; `heat` colours the numbers by their size."""
        header, texts, numeric = layout(rows)
        return cls(caption, header, texts, numeric, folded, heat_of(rows) if heat else None, links)


def heat_of(rows: Sequence[Row]) -> list[list[float | None]]:
    """For each cell how far its mean lies between the table's lowest (0) and highest (1); None where there is none."""
    means = [[cell.mean if isinstance(cell, Estimate) else None for cell in row.values()] for row in rows]
    known = [mean for row in means for mean in row if mean is not None]
    low, span = min(known, default=0.0), (max(known, default=0.0) - min(known, default=0.0)) or 1.0
    return [[None if mean is None else round((mean - low) / span, 3) for mean in row] for row in means]


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Follow:
    """A client and a round to choose, and what the page's script shows of them: `data` of `clients.follow_blocks`."""

    kind: ClassVar[str] = "follow"
    title: str
    caption: str
    data: Json


Block = Plot | Pictures | Table | Note | Follow


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; its `parts` are folded away unless they are `unfolded`."""

    slug: str
    title: str
    blocks: list[Block]
    lead: str = ""
    parts: list["Section"] = field(default_factory=list)
    unfolded: bool = False


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    kind: str
    lead: str
    cards: list[Card]
    sections: list[Section]
    footer: str
    answer: str = ""  # what came out, in a sentence
    warnings: tuple[str, ...] = ()  # what makes the numbers worth less than they look
    links: Mapping[str, str] = field(default_factory=dict)  # other pages: their address by what to call them
