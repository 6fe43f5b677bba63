"""What the fuzzer found worth keeping, and whatever it has broken once, replayed."""

from pathlib import Path

import pytest

from fedmd.runs.inline import server_identity
from tests.fuzz.wire import TARGETS, one_input, seeds

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_ends_in_values_or_reasons(path: Path) -> None:
    with server_identity():
        one_input(path.read_bytes())


def test_the_honest_seeds_are_in_it_and_reach_every_target() -> None:
    with server_identity():
        made = seeds()
    assert {data[:1] for data in made.values()} == set(TARGETS)
    for data in made.values():
        with server_identity():
            one_input(data)
    assert {path.read_bytes()[:1] for path in CORPUS} == set(TARGETS)
