"""The hash chain: every record's hash covers the one before it, so that nobody edits, drops or swaps one unseen.

    h_0 = 64 zeros,   h_n = SHA-256(h_{n-1} + canonical JSON of record n)

The chain is not keyed: who may rewrite the whole file can rewrite every hash. Against that, note down the head that
`fedmd audit --verify` prints, somewhere else.
"""

import hashlib
import json
import math
from dataclasses import dataclass

from fedmd.types import Json

GENESIS = "0" * 64


@dataclass(frozen=True)
class Position:
    """A place in the trail: just after record `seq` (0: before the first), whose hash is `hash`."""

    seq: int = 0
    hash: str = GENESIS


def canonical(body: Json) -> str:
    """JSON with sorted keys, no spaces, ASCII only; a float that is no number becomes null."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in body.items()}
    return json.dumps(finite, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def link(previous: str, text: bytes) -> str:
    """The hash of a record with the canonical `text` that follows one with the hash `previous`."""
    return hashlib.sha256(previous.encode() + text).hexdigest()
