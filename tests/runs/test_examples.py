"""The images that a run in mode=stream shows of its attackers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmd.config import RunConfig
from fedmd.rounds.stream import StreamServer
from fedmd.runs.examples import example_images
from fedmd.training.setup import set_up
from fedmd.types import ExampleImages, StreamBatch


@pytest.fixture
def shown(make_config: Callable[..., RunConfig]) -> Any:
    """`shown(batches)`: what is shown of a round in which these were judged; clients 1 and 3 attack."""
    setup = set_up(make_config())
    server = StreamServer(setup)

    def show(
        batches: Sequence[StreamBatch], phase: str = "accumulative", out: Sequence[int] = ()
    ) -> ExampleImages | None:
        judged = server.without(server.judge(batches), frozenset(out))
        result: Any = SimpleNamespace(judged=judged, report=SimpleNamespace(phase=phase))
        return example_images(setup.data, (1, 3), result)

    show.batches = [setup.data.streams.batch(client, 2) for client in range(4)]  # type: ignore[attr-defined]
    return show


def test_they_are_of_an_attacker_that_was_judged(shown: Any) -> None:
    """Client 1 is in quarantine: its message came, and nobody looked at it. Then 3 is out as well."""
    honest, _, another, attacker = shown.batches
    found = shown([honest, another, attacker])
    assert np.array_equal(found.poisoned, attacker.images) and np.array_equal(found.corrected, attacker.images)
    assert shown([honest, another]) is None
    assert shown([honest, another, attacker], phase="clean") is None


def test_what_was_rejected_is_black(shown: Any) -> None:
    found = shown(shown.batches, out=[1])
    assert np.array_equal(found.poisoned, shown.batches[1].images) and not found.corrected.any()


def test_a_message_of_another_length_is_shown_as_far_as_it_goes(shown: Any) -> None:
    *others, last = shown.batches
    short = replace(last, images=last.images[:1], labels=last.labels[:1])  # its stream has ended
    found = shown([others[0], short])
    assert all(len(images) == 1 for images in (found.clean, found.poisoned, found.corrected))


def test_originals_are_of_the_members_own_stream(shown: Any) -> None:
    honest, attacker = shown.batches[0], shown.batches[1]
    found = shown([honest, replace(attacker, images=255 - attacker.images)])
    assert np.array_equal(found.clean, attacker.images) and np.array_equal(found.poisoned, 255 - attacker.images)
