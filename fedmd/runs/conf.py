"""Where the YAML files of the configuration lie."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent  # fedmd/


def config_dir() -> Path:
    """`conf/`: inside the installed package, or beside it in a checkout and in a Flower bundle."""
    return next(path for path in (_HERE / "conf", _HERE.parent / "conf") if (path / "config.yaml").exists())
