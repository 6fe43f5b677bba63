"""What a run tells its reports of its scores: built-ins and those of one's own."""

from collections.abc import Callable

import pytest

from fedmd.config import RunConfig
from fedmd.defense.base import score_labels
from fedmd.defense.samples.detectors.base import Detector
from fedmd.registry import DETECTORS

Make = Callable[..., RunConfig]


class Glow(Detector):
    """Named by the factory."""

    label = "Glow of the image"
    unit = "lux"


def test_fedmds_own_are_called_as_ever(make_config: Make) -> None:
    """Reports of years are compared by these."""
    scores = score_labels(make_config({"defense": {"name": "dsc"}}), [each.name for each in DETECTORS.own()])
    assert scores["held"] == "discrepancy"
    assert {name: (known["label"], known["unit"]) for name, known in scores["detectors"].items()} == {
        "discrepancy": ("Memorization discrepancy", "nats"),
        "historical_loss": ("Historical loss", "nats"),
        "current_loss": ("Current loss", "nats"),
        "confidence": ("Lack of confidence", ""),
        "pixel_distance": ("Pixel distance", ""),
        "kernel_density": ("Negative log kernel density", "nats"),
        "lid": ("Local intrinsic dimensionality", ""),
        "mahalanobis": ("Mahalanobis distance", ""),
        "combined": ("Combined p-values", "nats"),
    }


@pytest.mark.parametrize(
    ("defense", "judges"),
    [("dsc", True), ("drop", True), ("trim", True), ("none", False), ("at", False), ("clip", False), ("frozen", False)],
)
def test_which_defences_go_by_a_score(make_config: Make, defense: str, judges: bool) -> None:
    assert score_labels(make_config({"defense": {"name": defense}}), ())["judges"] is judges


def test_a_detector_of_ones_own_brings_its_label(make_config: Make) -> None:
    defense = {"name": "drop", "detector": "custom", "detector_factory": f"{__name__}:Glow"}
    scores = score_labels(make_config({"defense": defense}), ())
    assert scores["detectors"][scores["held"]] == {"label": "Glow of the image", "unit": "lux"}


def test_updates_are_held_against_their_limits(make_config: Make) -> None:
    run = make_config({"mode": "update", "defense": {"name": "discrepancy_screening"}})
    scores = score_labels(run, ())
    assert scores["judges"] and scores["detectors"][scores["held"]] == {
        "label": "Score over its limit",
        "unit": "factor",
    }
