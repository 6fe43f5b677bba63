"""Flower's identity of a ServerApp, without which no message can be made."""

from collections.abc import Iterator

import pytest

from fedmd.runs.inline import server_identity


@pytest.fixture(autouse=True, scope="session")
def identity() -> Iterator[None]:
    """For all tests of this folder."""
    with server_identity():
        yield
