"""A wheel of this checkout, made by the build backend where it is installed: no network, nothing left behind."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_wheel_holds_every_configuration_where_the_package_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = pytest.importorskip("hatchling.build", reason="the build backend is not installed")
    monkeypatch.chdir(ROOT)  # where PEP 517 has a backend look for the project
    with zipfile.ZipFile(tmp_path / backend.build_wheel(str(tmp_path))) as wheel:
        packed = {name: wheel.read(name) for name in wheel.namelist()}
    conf = Path("fedmd/conf")
    wanted = {(conf / path.relative_to(ROOT / "conf")).as_posix(): path for path in (ROOT / "conf").rglob("*.yaml")}
    assert (conf / "config.yaml").as_posix() in wanted and "fedmd/attacks/catalogue/alie.py" in packed
    found = {name: content for name, content in packed.items() if conf in Path(name).parents}
    assert found == {name: path.read_bytes() for name, path in wanted.items()}
