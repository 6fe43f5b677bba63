"""A trusted set that follows a stream which drifts: recent samples take the place of a share of it.

An extension of ours. A server's own images grow old when the world moves on; then every honest client looks strange,
and batch-norm statistics are those of another time. What may replace them is what the stream itself shows, as far as
that can be believed: of every round the messages of the less suspicious half of the clients, by their mean score. While
less than half of a round is malicious and attackers score higher, these are honest ones. To wait for *accepted*
messages would not do: after a sudden shift none is. The claimed labels are taken with the samples.

How much may be replaced is a setting, as whoever sends often what looks harmless has a say in it.
"""

import torch
from torch import Tensor

from fedmd.defense.samples.pooling import client_means

Labelled = tuple[Tensor, Tensor]  # x [n, C, H, W] and y [n]


class Following:
    """`trusted` with its newest `share` taken from the stream; the rest is `own`, which never changes."""

    def __init__(self, own: Labelled, share: float) -> None:
        self._own = own
        self._most = round(share * len(own[0]))
        self._recent: Labelled = (own[0][:0], own[1][:0])

    @property
    def trusted(self) -> Labelled:
        """As many samples as `own` has."""
        kept = len(self._own[0]) - len(self._recent[0])
        x, y = (torch.cat([own[:kept], new]) for own, new in zip(self._own, self._recent, strict=True))
        return x, y

    def observe(self, x: Tensor, y: Tensor, scores: Tensor, clients: Tensor) -> None:
        """One more round: `x` [N, C, H, W], `y` [N] with their `scores` [N] and senders `clients` [N]."""
        calm = less_suspicious(scores, clients)
        first = -self._most or len(self._own[0])
        old_x, old_y = self._recent
        self._recent = torch.cat([old_x, x[calm]])[first:], torch.cat([old_y, y[calm]])[first:]

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs."""
        return {"x": self._recent[0], "y": self._recent[1]}

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        own = self._own
        self._recent = saved["x"].to(own[0]), saved["y"].to(own[1])


def less_suspicious(scores: Tensor, clients: Tensor) -> Tensor:
    """Which samples [N], bool, are of the half of the clients with the lower mean score; NaN is suspicious."""
    if len(scores) == 0:
        return torch.zeros(0, dtype=torch.bool, device=scores.device)
    means, sender = client_means(scores, clients)
    known = means.nan_to_num(nan=torch.inf, posinf=torch.inf)
    calm: Tensor = (known <= known.median()) & known.isfinite()
    return calm[sender]
