"""The model's ways to those who subscribed: a file of this machine, a name in this process, the message itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Message

from fedmd.config import RunConfig
from fedmd.flower.wire.header import Request, read_request
from fedmd.flower.wire.model_exchange import ByReference, Exchange, InMessage, InProcess, fetch_state, shared_memory
from fedmd.flower.wire.samples import STREAM
from fedmd.models import model_for
from fedmd.types import ImageSet
from tests.flower.wire.examples import asked
from tests.inline import over_the_wire

Make = Callable[..., RunConfig]


def request(exchange: Exchange, round: int, model: torch.nn.Module) -> Request:
    """What a subscribed client reads in `round`."""
    published = exchange.publish(round, model)
    content = asked("{}", round, [0], exchange=exchange.folder, **vars(published))
    return read_request(over_the_wire(Message(content, 1, STREAM)))


@pytest.mark.parametrize("name", ["resnet_small", "cnn"])
def test_both_ways_deliver_the_same_parameters(make_config: Make, images: ImageSet, name: str) -> None:
    config = make_config({"model": {"name": name, "width": 4}}).model
    source = model_for(config, images, 0)
    with shared_memory() as shared:
        by_reference, here = ByReference(shared), InProcess(shared)
        for round, exchange in enumerate((by_reference, InMessage(), here, by_reference)):
            source(torch.rand(4, 1, 8, 8))  # batch-norm statistics and counts move, too
            with torch.no_grad():
                next(source.parameters()).add_(1)
            target = model_for(config, images, 1)
            target.load_state_dict(fetch_state(request(exchange, round, source)))
            state = target.state_dict()
            assert all(torch.equal(tensor, state[key]) for key, tensor in source.state_dict().items())
        assert [path.name for path in Path(by_reference.folder).iterdir()] == ["model-3.safetensors"]
    assert not Path(by_reference.folder).exists()
    late = request(here, 0, source)
    with shared_memory():
        pass
    with pytest.raises(ValueError, match="no longer"):
        fetch_state(late)


def test_what_was_fetched_does_not_change_with_the_file(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    """The next version replaces the file while a slow client still works with this one."""
    source, target = (model_for(make_config().model, images, seed) for seed in (0, 1))
    exchange = ByReference(tmp_path)
    target.load_state_dict(fetch_state(request(exchange, 0, source)))
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    request(exchange, 1, model_for(make_config().model, images, 2))
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())


def test_a_request_without_a_model() -> None:
    empty = read_request(over_the_wire(Message(asked("{}", 0, [0]), 1, STREAM)))
    with pytest.raises(ValueError, match="carries no model"):
        fetch_state(empty)
