"""README and docs/: every Python example runs, every fedmd command composes, every link and path leads somewhere.

Conventions of the pages: ```python blocks of a page run from top to bottom in one namespace, in an empty folder. A
block that begins with `# NAME.py` is that file, too, for the page's commands. A block under a comment
`<!-- fragment: why -->` is only compiled, and what it imports from fedmd must be there. Commands stand in ```sh blocks;
those that start a federation are composed here, and run by the tests in tests/integration.
"""

import ast
import importlib
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedmd.cli.main import main
from fedmd.config import ConfigError
from fedmd.registry import REGISTRIES
from fedmd.runs.compose import compose, resumed_folder
from fedmd.runs.plan import compose_study

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
COMMUNITY = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
LINKING = [*PAGES, *COMMUNITY, *sorted((ROOT / "simulations").rglob("README.md"))]
FENCE = re.compile(r"^(?:<!-- (?P<mark>fragment): [^\n]+ -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:fedmd|conf|simulations|tests|docs)/[\w./*-]+)`")
DOTTED = re.compile(r"`(fedmd(?:\.\w+)+)`")
HEADING = re.compile(r"^#+ (.+)$", re.M)
EQUATION = re.compile(r"\b[Ee]qs? \((\d+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the line it begins at, its language, its text, and whether it is marked as a fragment."""

    line: int
    language: str
    text: str
    is_fragment: bool


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text[: found.start("text")].count("\n"), found["language"], found["text"], found["mark"] is not None)
        for found in FENCE.finditer(text)
    ]


def commands(page: Path, program: str) -> list[list[str]]:
    """The command lines of a page that begin with `program`, as a shell would split them; comments are left out."""
    lines = [
        line
        for block in blocks(page)
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] == program]


def write_modules(folder: Path) -> list[str]:
    """Write the files that the pages' Python blocks are into `folder`; returns the modules' names."""
    names = []
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python" and (found := re.match(r"# (\w+)\.py\n", block.text)):
                (folder / f"{found[1]}.py").write_text(block.text)
                names.append(found[1])
    return names


def name(page: Path) -> str:
    """How a test's id shows a page."""
    return page.relative_to(ROOT).as_posix()


with_python = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", with_python, ids=name)
def test_python_examples_run_as_printed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "example"}
    for block in blocks(page):
        if block.language != "python":
            continue
        code = compile("\n" * block.line + block.text, str(page), "exec")
        if block.is_fragment:
            imports_resolve(block.text)
        else:
            exec(code, namespace)


def imports_resolve(text: str) -> None:
    """Raise where the text imports something from fedmd that is not there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "fedmd":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


FEDMD = sorted({shlex.join(words) for page in PAGES for words in commands(page, "fedmd")})


@pytest.mark.parametrize("command", FEDMD)
def test_commands_compose(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in write_modules(tmp_path):
        monkeypatch.delitem(sys.modules, module, raising=False)
    words = shlex.split(command.replace("/tmp/", f"{tmp_path}/").replace("/srv/", f"{tmp_path}/"))[1:]
    try:
        dry_run(words)
    except ConfigError as error:
        complaint = str(error)
    except SystemExit as ended:
        complaint = capsys.readouterr().err if ended.code else ""
    else:
        complaint = ""
    assert not complaint or str(tmp_path) in complaint  # no such run is all that may be wrong


def dry_run(words: list[str]) -> None:
    """What the command does before it starts a federation; all of it, where it starts none."""
    command, *rest = words
    if command == "compare":
        compose_study(rest)
    elif command == "calibrate":
        compose([word for word in rest if "=" in word])
    elif command == "run" and "--help" not in rest and resumed_folder(rest) is None:
        main(["run", "--cfg", *rest])
    elif command != "run":
        main(words)


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=shlex.join(words)) for page in PAGES for words in commands(page, "flwr")]
)
def test_overrides_of_flwr_compose(words: list[str]) -> None:
    for word in words:
        if found := re.fullmatch(r'overrides="(.*)"', word):
            compose(shlex.split(found[1]))


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=shlex.join(words)) for page in PAGES for words in commands(page, "make")]
)
def test_targets_are_in_the_makefile(words: list[str]) -> None:
    assert re.search(rf"^{re.escape(words[1])}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert not dead


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub and MkDocs name them."""
    bare = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in HEADING.findall(page.read_text()))
    return {re.sub(r"\s", "-", heading) for heading in bare}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=name)
def test_paths_are_there(page: Path) -> None:
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert not [path for path in named if not any(ROOT.glob(path.rstrip("/.")))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_are_there(page: Path) -> None:
    named = set(DOTTED.findall(page.read_text(encoding="utf-8"))) - {registry.group for registry in REGISTRIES.values()}
    assert not [dotted for dotted in named if not resolves(dotted)]


def resolves(dotted: str) -> bool:
    """Whether `fedmd.room.module.name` is a module, or something in one."""
    owner, _, last = dotted.rpartition(".")
    try:
        return hasattr(importlib.import_module(owner), last) or importlib.import_module(dotted) is not None
    except ImportError:
        return False


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_every_equation_of_a_docstring_is_on_the_page() -> None:
    listed = {int(n) for n in re.findall(r"^### \((\d+)\)", (ROOT / "docs/equations.md").read_text(), re.M)}
    cited = {int(n) for path in (ROOT / "fedmd").rglob("*.py") for n in EQUATION.findall(path.read_text())}
    assert cited <= listed == set(range(1, 12))


def test_readme_names_all_there_is() -> None:
    listed = set(re.findall(r"`(\w+)`", README.read_text()))
    kinds = ("attack", "defense", "detector", "history", "strategy")
    built_in = {plugin.name for kind in kinds for plugin in REGISTRIES[kind].own()}
    assert len(built_in) > 30
    assert not built_in - listed


def test_every_group_of_settings_is_explained() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    groups = [path.name for path in (ROOT / "conf").iterdir() if path.is_dir()]
    assert not [group for group in groups if f"`{group}`" not in page]
