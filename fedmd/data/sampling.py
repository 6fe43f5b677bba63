"""Which clients take part in a round."""

from fedmd.config import RunConfig
from fedmd.seeding import numpy_generator


def sample_clients(config: RunConfig, round: int) -> tuple[int, ...]:
    """The clients asked in `round`, ascending; a function of seed and round only."""
    federation = config.federation
    drawn = numpy_generator(config.seed, "clients", round=round).choice(
        federation.clients, federation.sampled_clients, replace=False
    )
    return tuple(sorted(int(client) for client in drawn))
