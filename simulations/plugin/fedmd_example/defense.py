"""A defence for mode=stream."""

import torch
from pydantic import Field

from fedmd.config import Section, Share
from fedmd.defense.base import Decision, Defense
from fedmd.types import Action


class DropClients(Defense):
    """All samples of a client are rejected when too many of them are above the threshold."""

    uses_threshold = True

    class Params(Section):
        share: Share = Field(0.5, description="of a client's samples in a round, from which on all are rejected")

    params: Params

    def decide(self, batch):
        """Client by client; without clients, all samples are one's."""
        decision = Decision.for_all(batch, Action.ACCEPTED)
        senders = torch.zeros(len(batch.x)) if batch.clients is None else batch.clients
        for sender in senders.unique():
            sent = senders == sender
            if batch.suspicious[sent].float().mean() >= self.params.share:
                decision.actions[sent] = Action.REJECTED
        return decision
