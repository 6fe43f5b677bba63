"""The collector is away while a run starts, and back when it goes on, whatever happens."""

import gc

import pytest

from fedmd.cli.start_up import starting_up


def test_no_collection_while_starting_up_and_again_afterwards():
    with starting_up():
        assert not gc.isenabled()
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    assert frozen > 1000
    with pytest.raises(ValueError), starting_up():
        raise ValueError
    assert gc.isenabled()
    kept = [[] for _ in range(10_000)]
    with starting_up():
        pass
    assert gc.get_freeze_count() <= frozen and kept  # frozen once: a second start keeps nothing more
