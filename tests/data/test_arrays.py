"""NPZ and CSV: pictures, features as pixels of 256 levels, labels as texts, one sentence for what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmd.config import ConfigError, DataConfig
from fedmd.data.features import as_pixels
from fedmd.data.sources.base import load_images
from fedmd.runs.compose import compose
from fedmd.types import ImageSet


def read(path: Path, **settings: Any) -> ImageSet:
    name = "npz" if path.suffix == ".npz" else "csv"
    return load_images(DataConfig(name=name, path=str(path), **settings), path.parent / "cache")


def npz(folder: Path, **arrays: NDArray[Any]) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def test_features_have_256_levels_of_their_own_range() -> None:
    features = np.array([[0.0, -5.0, 7.0], [1.0, 5.0, 7.0], [0.5, 0.0, 7.0]])
    pixels = as_pixels(features, key="data.x", place="here")
    assert pixels.shape == (3, 1, 1, 3) and pixels[:, 0, 0].tolist() == [[0, 0, 0], [255, 255, 0], [128, 128, 0]]
    random = np.random.default_rng(0).normal(size=(200, 4))
    low, span = random.min(0), random.max(0) - random.min(0)
    back = as_pixels(random, key="", place="")[:, 0, 0] / 255 * span + low
    assert np.abs(back - random).max() <= span.max() / 255 / 2 + 1e-9


def test_pictures_and_features_of_an_npz_file(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
    found = read(npz(tmp_path, x=pictures, y=np.array([0, 2, 1, 0])))
    assert np.array_equal(found.images, pictures) and found.labels.tolist() == [0, 2, 1, 0]
    assert read(npz(tmp_path, x=pictures[:, 0], y=np.arange(4))).images.shape == (4, 1, 5, 6)
    named = read(npz(tmp_path, emb=np.eye(4), who=np.array(["b", "a", "b", "c"])), x="emb", y="who")
    assert named.images.shape == (4, 1, 1, 4) and named.labels.tolist() == [1, 0, 1, 2]


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("age,label,size\n10,yes,1.5\n30,no,2.5\n20,yes,2.0\n")
    found = read(path)
    assert found.labels.tolist() == [1, 0, 1]
    assert found.images[:, 0, 0].tolist() == [[0, 0], [255, 255], [128, 128]]
    path.write_text("a,b,species\n1,2,0\n3,4,1\n")
    assert read(path).labels.tolist() == [0, 1]  # the last column


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"y": np.arange(3)}, r"^data\.x: .* has no array 'x'; it has y\.$"),
        ({"x": np.zeros((3, 2)), "y": np.arange(2)}, r"^data\.y: .* has labels \[2\] for samples \[3, 2\]"),
        ({"x": np.zeros((2, 2)), "y": np.array([0.5, 1])}, r"^data\.y: labels of .* not float64"),
        ({"x": np.zeros((2, 2)), "y": np.array([-1, 1])}, r"^data\.y: labels"),
        ({"x": np.zeros((2, 3, 4, 4)), "y": np.arange(2)}, r"^data\.x: .* must hold uint8 pictures .* not float64"),
        ({"x": np.array([[1.0], [np.nan]]), "y": np.arange(2)}, r"^data\.x: row 1 of .* no finite number in feature 0"),
    ],
)
def test_what_an_npz_file_may_not_hold(arrays: dict[str, NDArray[Any]], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read(npz(tmp_path, **arrays))


def test_what_a_table_may_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for text, settings, sentence in (
        ("a,b\nred,1\n", {}, r"^data\.path: column 'a' of .* holds no numbers"),
        ("a,b\n1,1\n", {"label_column": "c"}, r"^data\.label_column: .* no column 'c'; it has a, b\.$"),
        ("a,label\n,1\n2,0\n", {}, r"^data\.path: row 0 of .* no finite number"),
        ("", {}, r"^data\.path: .* cannot be read as CSV"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            read(path, **settings)
    (tmp_path / "b.npz").write_text("no archive")
    with pytest.raises(ConfigError, match=r"^data\.path: .* is not an \.npz file"):
        read(tmp_path / "b.npz")
    for name in ("npz", "csv"):
        with pytest.raises(ConfigError, match=r"^data\.path must name"):
            compose([f"data={name}"])


def test_a_federation_on_a_table_learns_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blobs in four dimensions, which a linear rule tells apart nearly always."""
    from fedmd.runs.api import run

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    features = rng.normal(size=(600, 4)) + 2.5 * labels[:, None]
    rows = "\n".join(",".join(map(str, [*row, label])) for row, label in zip(features, labels, strict=True))
    (tmp_path / "blobs.csv").write_text(f"a,b,c,d,label\n{rows}\n")
    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "cache"))
    said = ["experiment=smoke", "data=csv", f"data.path={tmp_path}/blobs.csv", "model=mlp", "model.width=16"]
    found = run(*said, "runtime.engine=inline", "attack=none", "defense=drop", folder=tmp_path / "run")
    assert found.summary["accuracy"]["final"] > 0.9
