"""What a server did not use of a round, in either mode, as audit entries."""

from collections.abc import Mapping, Sequence

from fedmd.audit.entry import Entry
from fedmd.types import Rejection, Stranger


def refusals(
    round: int, model_version: int, rejections: Sequence[Rejection], nodes: Mapping[int, str]
) -> list[tuple[int, list[Entry]]]:
    """(client, its entry) for each of `rejections`; `nodes` maps clients to their node's key fingerprint."""
    return [
        (
            item.client,
            [
                Entry(
                    "message",
                    "rejected",
                    round=round,
                    client=item.client,
                    node=nodes.get(item.client),
                    reason=item.reason,
                    model_version=model_version,
                    content=item.content,
                )
            ],
        )
        for item in rejections
    ]


def turned_away(round: int, strangers: Sequence[Stranger]) -> list[Entry]:
    """The entries on nodes that were not let in since the round before."""
    return [Entry("message", "rejected", round=round, node=each.key, reason=each.reason) for each in strangers]
