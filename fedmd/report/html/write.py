"""Write report.html: read the evidence, lay out the page, render it, keep it under the limit."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fedmd.report.files import REPORT, write_text
from fedmd.report.html.arms_page import arms_page
from fedmd.report.html.content import Page
from fedmd.report.html.evidence import Evidence, read_evidence
from fedmd.report.html.run_page import run_page

MAX_BYTES = 3_000_000
_HERE = Path(__file__).resolve().parent


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report on what lies in `folder`, to `output` or else into it; its path.

    Raises ReportError when no finished run lies there.
    """
    evidence = read_evidence(folder)
    target = output or folder / REPORT
    write_text(target, report_html(evidence))
    return target


def report_html(evidence: Evidence) -> str:
    """The page as text of less than MAX_BYTES; what does not fit of the arms' own figures is left out."""
    title = evidence.folder.resolve().name or "report"
    if evidence.kind == "run":
        ((run,),) = (runs.values() for runs in evidence.arms.values())
        return render(run_page(run, title))
    details = min(len(evidence.arms), 12)
    while len((html := render(arms_page(evidence, title, details))).encode()) >= MAX_BYTES and details:
        details //= 2
    return html


def render(page: Page) -> str:
    """HTML; every text in the page is escaped, only our own style sheet and SVG are not."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html").render(page=page, style=style)
