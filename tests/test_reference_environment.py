"""The lock file of the reference environment pins what fedmd asks for, within the versions that it asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / ".ci" / "constraints.txt"


@pytest.mark.skipif(not LOCK.exists(), reason="the lock file is part of a checkout only")
def test_each_requirement_is_pinned_to_a_version_that_satisfies_it() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    pinned = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert len(pinned) == len(lines) and all(pinned.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate():
            assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), text
