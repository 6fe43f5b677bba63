"""Every data option of conf/ composes, and the sentences for settings that must be given."""

import pytest

from fedmd.config import ConfigError
from fedmd.registry import DATA
from fedmd.runs.compose import choices, compose

GIVEN = {
    "parquet": ["data.path=x"],
    "npz": ["data.path=x"],
    "csv": ["data.path=x"],
    "image_folder": ["data.path=x", "data.image_size=[32,24]"],
    "huggingface": ["data.dataset=me/pets"],
}


@pytest.mark.parametrize("name", DATA.names())
def test_every_option_composes_and_has_a_source(name: str) -> None:
    shards = ["data.partition.name=shards", "data.partition.classes_per_client=2"]
    config = compose([f"data={name}", *shards, *GIVEN.get(name, [])]).config
    assert config.data.name == name
    assert config.data.partition.classes_per_client == 2
    assert type(config).parse(config.to_json()) == config


def test_every_source_has_an_option() -> None:
    assert sorted([*DATA.names(), "custom"]) == choices("data")


def test_a_source_has_its_own_settings_only() -> None:
    with pytest.raises(ConfigError, match=r"^data\.path: unknown key; allowed here: name, augment, splits"):
        compose(["data=digits", "+data.path=x"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("parquet", r"^data\.path must name one or more Parquet files"),
        ("image_folder", r"^data\.path must name a folder"),
        ("huggingface", r"^data\.dataset must name a data set on the Hugging Face Hub"),
    ],
)
def test_a_place_must_be_given_where_there_is_no_default(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        compose([f"data={name}"])


def test_shifts_are_overrides() -> None:
    classes = compose(["stream.shift.name=classes", "stream.shift.classes=[8,9]"]).config.stream.shift
    assert classes.classes == (8, 9)
    assert compose(["stream.shift.name=rotation", "stream.shift.angle=-30"]).config.stream.shift.angle == -30
    assert compose([]).config.stream.shift.name == "none"
