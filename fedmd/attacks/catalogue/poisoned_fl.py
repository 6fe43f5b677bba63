"""PoisonedFL [X25]: the same random direction in every round, as long as the server lets through.

    s ∈ {−1, 1}^d drawn once;   g_t = θ_t − θ_{t−1},   u_{t−1} what was sent in the round before
    v_t = |g_t − (‖g_t‖ / ‖u_{t−1}‖) u_{t−1}|, normed to length 1;   u_t = c_t ‖g_t‖ v_t ⊙ s
    every e rounds c shrinks to β c, unless θ_t − θ_{t−e} has more of the signs of s than chance gives it (p < 0.01)

The attackers see nobody's data and nobody's update: only the models that the server publishes. v_t is large where the
others pull, as far as what the server did is not their own doing; c starts at 8, e = 50, β = 0.7, and is never below
0.5, as in the paper.

Where we differ: in the first round, which has no g yet, members are honest (u = 0); and s follows from the run's seed.

[X25] Xie, Fang and Gong, Model Poisoning Attacks to Federated Learning via Multi-Round Consistency, CVPR 2025.
"""

import torch
from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, Team
from fedmd.attacks.vectors import flatten, parameters_only
from fedmd.config import Count, Positive, Section, Share
from fedmd.registry import register_attack
from fedmd.seeding import generator

_P_VALUE = 0.01
_SMALLEST_SCALE = 0.5


def consistent_update(moved: Tensor, sent: Tensor, signs: Tensor, scale: float) -> Tensor:
    """u_t [d] from g_t = ``moved``, u_{t−1} = ``sent``, s = ``signs`` (each [d]) and c_t = ``scale``.

    Zero where the server did not move, and where it moved by nothing but what was sent.
    """
    length, before = torch.linalg.vector_norm(moved), torch.linalg.vector_norm(sent)
    rest = (moved - (length / before) * sent if before > 0 else moved).abs()
    norm = torch.linalg.vector_norm(rest)
    return scale * length * (rest / norm) * signs if norm > 0 else torch.zeros_like(moved)


def is_effective(moved: Tensor, signs: Tensor) -> bool:
    """Whether so many signs of ``moved`` [d] are those of ``signs`` that chance has them once in a hundred times."""
    from scipy.stats import binom  # slow to import, and for this attack only

    agreeing = int((moved.sign() == signs).sum())
    return bool(binom.sf(agreeing - 1, len(signs), 0.5) < _P_VALUE)


@register_attack("poisoned_fl")
class PoisonedFL(Attack):
    """One random direction in every round, as long as it gets through; sees no update (Xie et al., CVPR 2025)."""

    label = "PoisonedFL"
    modes = ("update",)

    class Params(Section):
        """How long its steps are."""

        scale: Positive = Field(8.0, description="c, times the length of the server's last step, at first")
        shrink: Share = Field(0.7, description="of c, where the attack has shown no effect")
        rounds: Count = Field(50, description="between two looks at the effect")

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """u_t, the same for all colluders; their own honest update in the first round."""

        def send() -> dict[str, Tensor]:
            start = flatten(parameters_only(known.situation.model, known.situation.start)).detach().cpu()
            signs = _signs(team.config.seed, len(start))
            memory = team.cache.kept("poisoned_fl")
            if memory is None:
                first = {"compared": start, "scale": torch.tensor(self.params.scale), "age": torch.tensor(0)}
                team.cache.keep("poisoned_fl", {**first, "model": start, "sent": torch.zeros_like(start)})
                return {}
            memory = self._looked_back(memory, start, signs)
            sent = consistent_update(start - memory["model"], memory["sent"], signs, memory["scale"].item())
            team.cache.keep("poisoned_fl", {**memory, "model": start, "sent": sent})
            return {"sent": sent}

        return team.cache.once("consistent", known.situation.round, send).get("sent", known.own)

    def _looked_back(self, memory: dict[str, Tensor], start: Tensor, signs: Tensor) -> dict[str, Tensor]:
        """`memory`, a round later: every so many rounds c shrinks where the direction has not prevailed."""
        age = int(memory["age"]) + 1
        if age % self.params.rounds:
            return {**memory, "age": torch.tensor(age)}
        scale = memory["scale"].item()
        if not is_effective(start - memory["compared"], signs):
            scale = max(_SMALLEST_SCALE, self.params.shrink * scale)
        return {**memory, "age": torch.tensor(age), "scale": torch.tensor(scale), "compared": start}


def _signs(seed: int, d: int) -> Tensor:
    """s [d]: −1 or 1."""
    return 2.0 * torch.randint(2, (d,), generator=generator(seed, "poisoned_fl")) - 1.0
