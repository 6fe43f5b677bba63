"""What is legal in which mode."""

from collections.abc import Mapping
from typing import Literal

Mode = Literal["stream", "update"]

# Settings whose values belong to one mode; a value that is not listed is legal in both.
STREAM_ONLY: dict[str, tuple[object, ...]] = {
    "attack.name": ("trigger_only", "backdoor", "noise"),
    "defense.name": ("at", "dsc", "drop", "clip", "trim", "frozen"),
    "history.name": (),
    "threshold.name": ("calibrated",),
    "stream.source": ("published_replay",),
}
UPDATE_ONLY: dict[str, tuple[object, ...]] = {
    "attack.name": ("sign_flip", "gaussian", "alie", "ipm", "min_max", "min_sum", "replacement", "free_rider"),
    "defense.name": ("md_screen",),
    "history.name": ("lag_and_start",),
    "stream.source": (),
}


def check_mode(mode: Mode, settings: Mapping[str, object]) -> None:
    """Raise ValueError naming the first of `settings` (by dotted key) that is for the other mode."""
    other, foreign = ("update", UPDATE_ONLY) if mode == "stream" else ("stream", STREAM_ONLY)
    for key, value in settings.items():
        if value in foreign.get(key, ()):
            raise ValueError(f"{key}: {value} is for mode={other}, not for mode={mode}")
    if mode == "update" and settings["quarantine.name"] == "evidence" and settings["defense.name"] != "md_screen":
        raise ValueError("quarantine.name: evidence comes from the screening in mode=update; set defense=md_screen")
    if mode == "update" and settings["attack.stop_error_rise"] is not None:
        raise ValueError("attack.stop_error_rise: is for mode=stream; in mode=update the phases are those of stream.*")
