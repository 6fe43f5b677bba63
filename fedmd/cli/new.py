"""`fedmd new`: a working skeleton and its test, in the current folder; nothing there is overwritten."""

import re
from pathlib import Path
from string import Template

from fedmd.config import ConfigError

_SKELETONS = Path(__file__).resolve().parent / "skeletons"
_NEXT = {
    "attack": "fedmd run experiment=smoke attack=custom attack.factory={name}:{Class}",
    "defence": "fedmd run experiment=smoke defense=custom defense.factory={name}:{Class}",
    "detector": "fedmd run experiment=smoke defense=drop defense.detector=custom "
    "defense.detector_factory={name}:{Class}",
    "study": "fedmd compare --config-dir conf experiment={name}",
}


def new(kind: str, name: str) -> int:
    """Always 0. Raises ConfigError for what is no name, and where a file of that name is there already."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"{name!r} names a Python module, so it must be lower-case letters, digits and _.")
    words = {"name": name, "Class": "".join(part.capitalize() for part in name.split("_"))}
    source, target = ("study.yaml", Path("conf/experiment") / f"{name}.yaml")
    if kind != "study":
        source, target = f"{kind}.py", Path(f"{name}.py")
    files = {target: source, Path(f"test_{name}.py"): f"test_{kind}.py"}
    for path in files:
        if path.exists():
            raise ConfigError(f"{path}: is there already; take another name.")
    for path, skeleton in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (_SKELETONS / f"{skeleton}.txt").read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
        print(path)
    print(f"try it:  pytest test_{name}.py\nrun it:  {_NEXT[kind].format(**words)}")
    return 0
