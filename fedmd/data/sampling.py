"""Which clients take part in a round."""

from fedmd.config import RunConfig
from fedmd.seeding import numpy_generator


def sample_clients(config: RunConfig, round: int) -> tuple[int, ...]:
    """The clients asked in `round`, ascending; a function of seed and round only. One draw serves a whole reply."""
    federation = config.federation
    asked_in = round - round % federation.batches_per_reply
    drawn = numpy_generator(config.seed, "clients", round=asked_in).choice(
        federation.clients, federation.sampled_clients, replace=False
    )
    return tuple(sorted(int(client) for client in drawn))
