"""How much of a client's behaviour the server puts up with."""

from fedmd.config.section import Count, Section


class LimitsConfig(Section):
    """Bounds on what clients send; beyond them a message is refused, with the reason on record.

    `max_samples` of one batch (null: stream.batch_size), or that an update claims to come from (null: local.samples,
    or as many as all clients have in a simulation); `max_message_bytes` of array data in one node's reply (null: 64 MiB
    of samples; of updates, what those asked for take); with valid messages of fewer than `min_clients` clients a round
    learns nothing. How long a round waits is federation.round_timeout_s.
    """

    max_samples: Count | None = None
    max_message_bytes: Count | None = None
    min_clients: Count = 1
