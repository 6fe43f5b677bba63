"""What the site needs beside the pages in docs/: a page of docstrings a room, and the community files.

MkDocs calls the functions here, whose names are its own. The API pages follow the modules that there are, so that
nothing here has to be changed when a module is added, renamed or moved.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
ALONG = {  # files outside of docs/ that become pages
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "simulations/results/README.md": "simulations-results.md",
    "simulations/deployment/README.md": "simulations-deployment.md",
}
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """List the pages that `on_files` makes behind those that are written."""
    config.nav.append({"Take part": ["contributing.md", "security.md", "changelog.md"]})
    config.nav.append({"How it was measured": ["simulations-results.md", "simulations-deployment.md"]})
    config.nav.append({"Reference": [f"api/{room}.md" for room in rooms()]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every room of fedmd/, and the files in ALONG."""
    for room, modules in rooms().items():
        lines = [f"# {room}", *(f"\n::: {module}" for module in modules)]
        files.append(File.generated(config, f"api/{room}.md", content="\n".join(lines) + "\n"))
    for source, page in ALONG.items():
        text = _LINK.sub(lambda link, folder=Path(source).parent: _seen_from_docs(link, folder), _read(source))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that lead out of docs/ go to the page in ALONG; of others, which the site has not, the words stay."""
    return _LINK.sub(_within_the_site, markdown)


def rooms() -> dict[str, list[str]]:
    """The modules of each folder of fedmd/ ("fedmd" for those in none), by name, without templates."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "fedmd").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "templates" in parts or path.stat().st_size == 0:
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.setdefault(parts[1] if len(parts) > 2 else "fedmd", []).append(module)
    return found


def _read(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def _seen_from_docs(link: re.Match[str], folder: Path) -> str:
    """A link of a file in `folder` as a page in docs/ would write it."""
    text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
    path = (ROOT / folder / target).resolve().relative_to(ROOT)
    within = path.relative_to("docs") if path.is_relative_to("docs") else Path("..", path)
    return f"[{text}]({within.as_posix()}{anchor})"


def _within_the_site(link: re.Match[str]) -> str:
    text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
    if not target.startswith("../"):
        return link.group(0)
    page = ALONG.get(target.removeprefix("../"))
    return f"[{text}]({page}{anchor})" if page else text
