"""A matplotlib figure as inline SVG that takes its colours and its font from the page."""

import io
import re
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from fedmd.report.figures.style import HOVER

WIDTH = 4.6  # inches; at a phone's width the text is still as large as it is here
VARIABLES = {  # the figures' colours -> the page's, see page.css
    "#000000": "--ink",
    "#0072b2": "--blue",
    "#d55e00": "--vermillion",
    "#009e73": "--green",
    "#cc79a7": "--pink",
    "#e69f00": "--orange",
    "#56b4e9": "--sky",
    "#808080": "--muted",
    "#dddddd": "--grid",
    "#ffffff": "--phase-clean",
    "#ebebeb": "--phase-accumulative",
    "#cccccc": "--phase-trigger",
    "#f6f6f6": "--phase-recovery",
}
_PAINT = re.compile(r"\b(fill|stroke): (#[0-9a-f]{6})")
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_SHORTHAND = re.compile(r"\bfont: (?:(\w+) )?([\d.]+px) [^;]*")  # matplotlib before 3.9 writes this instead
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_CLIENT = re.compile(r"client (\d+)(?:: .*)?")  # a gid of the heat map: the row of that client
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")


def inline_svg(figure: Figure, slug: str, alt: str, height: float | None = None) -> Markup:
    """The figure as an <svg> for an HTML page, WIDTH inches wide.

    Args:
        figure: is resized.
        slug: goes before every id, so that figures of one page do not clash.
        alt: what the figure shows, in words.
        height: in inches; without it the figure keeps its shape.
    """
    figure.set_size_inches(WIDTH, height or figure.get_size_inches()[1] * WIDTH / figure.get_size_inches()[0])
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedmd", "path.simplify_threshold": 0.2}):
        figure.savefig(
            text,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]),
        )
    root = ElementTree.fromstring(text.getvalue())
    for parent in list(root.iter()):
        for child in [child for child in parent if _local(child.tag) in ("style", "metadata")]:
            parent.remove(child)
    for element in list(root.iter()):
        name = element.get("id", "")
        client = _CLIENT.fullmatch(name)
        if client:
            element.set("data-client", client[1])
        if client or name.startswith(HOVER):
            title = ElementTree.Element("title")
            title.text = name.removeprefix(HOVER)
            element.insert(0, title)
    wanted = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        _rewrite(element, slug, wanted)
    body = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    return Markup('<svg class="plot" role="img" aria-label="{}" viewBox="{}">{}</svg>').format(
        alt, root.get("viewBox", ""), Markup(re.sub(r">\s+<", "><", body))
    )


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _references(element: ElementTree.Element) -> list[str]:
    links = [value[1:] for key, value in element.attrib.items() if _local(key) == "href" and value[0] == "#"]
    return links + [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]


def _rewrite(element: ElementTree.Element, slug: str, wanted: set[str]) -> None:
    """No namespaces (HTML needs none), only `wanted` ids and those our own, the page's colours and font."""
    element.tag = _local(element.tag)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    element.attrib.clear()
    for key, value in attributes.items():
        if key == "id" and value not in wanted:
            continue
        if key == "style":
            value = _FAMILY.sub("", _PAINT.sub(lambda paint: f"{paint[1]}: {_variable(paint[2])}", value))
            value = _SHORTHAND.sub(lambda font: f"font-size: {font[2]}; font-weight: {font[1] or 'normal'}", value)
        elif key == "id":
            value = f"{slug}-{value}"
        elif key == "href":
            value = f"#{slug}-{value[1:]}" if value[0] == "#" else value.replace("\n", "")
        elif key == "d":
            value = " ".join(_DECIMALS.sub(lambda number: f"{float(number[0]):.2f}", value).split())
        elif key in ("x", "y", "transform"):
            value = _DECIMALS.sub(lambda number: f"{float(number[0]):.3f}", value)
        element.set(key, _REFERENCE.sub(rf"url(#{slug}-\1)", value))


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour
