"""Settings of the audit trail, and of keeping a suspicious client's data aside."""

from typing import Annotated, Literal

from pydantic import Field

from fedmd.config.section import Count, Positive, Section

_MIB = 2**20


class AuditConfig(Section):
    """The trail of every message and verdict. A file that grew beyond `rotate_bytes` is followed by a new one."""

    rotate_bytes: Annotated[int, Field(ge=2**16)] = 256 * _MIB


class QuarantineConfig(Section):
    """Which clients are learned from no longer, and what is kept of them; see `fedmd.defense.evidence`.

    name=evidence quarantines a client whose evidence passes `limit` (nats); an honest client gets there once in
    exp(limit) rounds or less often. `shift` is how far above 1/2 the chance that a sample of the client outranks a
    trusted one must lie to be looked for; below half of it the evidence falls. A client returns after `rounds` rounds,
    or, with null, when an operator releases it. Of all quarantined clients together, batches of at most `max_rounds`
    rounds and `max_bytes` bytes are kept.
    """

    name: Literal["none", "evidence"] = "none"
    shift: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    limit: Positive = 10.0
    rounds: Count | None = None
    max_rounds: Count = 100
    max_bytes: Count = 256 * _MIB
