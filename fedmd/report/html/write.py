"""HTML of a run or a study: report.html, kept under a limit, and a few lines for a notebook."""

import base64
import hashlib
import io
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fedmd.report.files import REPORT
from fedmd.report.html.arms_page import arms_page, result_blocks
from fedmd.report.html.content import Page, Table
from fedmd.report.html.run_page import run_cards, run_lead, run_page
from fedmd.report.loading import load
from fedmd.report.results import Run, Study
from fedmd.storage import write_text

MAX_BYTES = 3_000_000
_HERE = Path(__file__).resolve().parent
_BREAKS = re.compile(r"(?<=[._=,/])")  # where the name of a setting or of a folder may go on in the next line


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report on what lies in `folder`, to `output` or else into it; its path.

    Raises ReportError when no finished run lies there.
    """
    target = output or folder / REPORT
    write_text(target, report_html(load(folder)))
    return target


def report_html(result: Run | Study) -> str:
    """The page as text of less than MAX_BYTES; what does not fit of the arms' own figures is left out."""
    name = result.folder.resolve().name or "report"
    if isinstance(result, Run):
        return render(run_page(result, name))
    details = min(len(result.arms), 12)
    while len((html := render(arms_page(result, name, details))).encode()) >= MAX_BYTES and details:
        details //= 2
    return html


def render(page: Page, *, live: bool = False) -> str:
    """HTML; every text in the page is escaped, only our own style sheet, scripts and SVG are not.

    A `live` page asks the server that it came from for itself, again and again.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = lambda text: Markup("<wbr>").join(_BREAKS.split(text))
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    scripts = ["page.js", "follow.js", *(["live.js"] if live else [])]
    script = "".join((_HERE / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page, style=Markup(style), script=Markup(script), script_hash=f"sha256-{digest}", live=live
    )


def run_html(run: Run) -> str:
    """The headline numbers and the accuracy of a run, without a style sheet."""
    row = Markup("<tr><th>{}</th><td>{}</td><td>{}</td></tr>")
    rows = Markup("").join(row.format(card.label, card.value, card.note) for card in run_cards(run.summary))
    return Markup("<p>{}</p><table>{}</table>{}").format(run_lead(run.summary), rows, _png(run.plot()))


def study_html(study: Study) -> str:
    """The first table of a study and the accuracy of its arms, without a style sheet."""
    table = next(block for block in result_blocks(study) if isinstance(block, Table))
    cells = [Markup("").join(Markup("<td>{}</td>").format(text) for text in row) for row in table.rows]
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in table.header)
    body = Markup("").join(Markup("<tr>{}</tr>").format(row) for row in cells)
    return Markup("<table><tr>{}</tr>{}</table><p>{}</p>{}").format(head, body, table.caption, _png(study.plot()))


def _png(figure: Figure) -> Markup:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Markup('<img src="data:image/png;base64,{}">').format(base64.b64encode(file.getvalue()).decode())
