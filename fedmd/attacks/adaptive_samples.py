"""Eq (11) for streamed samples: attackers who know the historical model, or the limit as well, and how they hold back.

    model:                 (3) maximises its sum − μ · mean D(x'),   (1) minimises S(x') + μ · mean D(x')
    model and threshold:   a sample with D(x') ≤ T is moved by (1) or (3) alone, one above descends D alone; of what is
                           sent, whatever is still above is halved towards the clean sample until  D ≤ T

    D(x') = KL(p_{θ_h}(x') ‖ p_{θ_t}(x')), eq (5), of the sample that is being crafted; or C(x', y) in its place, which
    joins a distance in the features to it: see `fedmd.attacks.known_scores`

An extension: [MD23] has no attacker who knows. The detector's score as a penalty of the attack's objective is from
[CW17]; the second form is the selective descent of [B22], which is the first with max(0, D − T) in the place of D and
μ beyond all bounds, and the halving that of eq (11) for updates.

θ_h is what the run's `history` makes of the models that the server sent the attackers, the honest rounds before the
attack included. A moving average or a lag is then the server's own, as far as one of them is sent a model every round.
Burn-in's snapshots are sent to nobody: the first model that they were sent stands for each of them. T is what they
believe the limit to be; the server's trusted set and the limit itself are unknown to them.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
[CW17] Carlini, Wagner, Adversarial Examples Are Not Easily Detected: Bypassing Ten Detection Methods, AISec 2017.
[B22] Bryniarski et al., Evading Adversarial Example Detection Defenses with Orthogonal Projected Gradient Descent,
    ICLR 2022.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmd.attacks.base import Team
from fedmd.attacks.gradients import PART
from fedmd.attacks.known_scores import Score
from fedmd.attacks.pixels import quantised

_KIND = "history"


@dataclass(frozen=True)
class Restraint:
    """What attackers who know the defence go by when they craft samples.

    score: what they hold back, D or C.
    penalty: μ of eq (11), the price of a nat in units of (1) or (3); of no meaning beside a `limit`.
    limit: T in nats; None: they do not know it.
    """

    score: Score
    penalty: float
    limit: float | None = None

    def uphill(self, slope: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """What is followed at ``x`` [N, ...] in place of ``slope``, the gradient there of what is to be maximised."""
        values, rise = score_rise(self.score, x, y)
        if self.limit is None:
            return slope - self.penalty * rise
        return torch.where(_each(values > self.limit, slope), -rise, slope)

    def below_limit(
        self, sent: NDArray[np.uint8], clean: NDArray[np.uint8], labels: NDArray[np.int64], *, halvings: int = 6
    ) -> NDArray[np.uint8]:
        """Of bytes [N, ...], those with a score above the limit halved towards the ``clean`` ones until it is not.

        After so many ``halvings`` what is still above is the clean sample. As it came where there is no limit.
        """
        if self.limit is None:
            return sent
        kept, y = sent.copy(), torch.from_numpy(labels)
        for halved in range(halvings + 1):
            values = scores(self.score, torch.from_numpy(kept).float().div_(255), y)
            above = ~(values <= self.limit).cpu().numpy()  # nor where it is none
            if not above.any():
                break
            start, moved = clean[above].astype(np.int64), kept[above].astype(np.int64) - clean[above]
            kept[above] = start + (moved / 2).astype(np.int64) * (halved < halvings)
        return kept


def sent(
    x: Tensor, clean: NDArray[np.uint8], labels: NDArray[np.int64], radius: float, restraint: Restraint | None
) -> NDArray[np.uint8]:
    """Crafted ``x`` [N, C, H, W] as the bytes that travel: within ``radius`` of the ``clean`` ones, below the limit."""
    images = quantised(x, clean, radius)
    return images if restraint is None else restraint.below_limit(images, clean, labels)


def scores(score: Score, x: Tensor, y: Tensor) -> Tensor:
    """``score`` [N] of ``x`` [N, ...] that claim ``y`` [N], in parts of PART samples; detached."""
    with torch.no_grad():
        pairs = zip(torch.split(x, PART), torch.split(y, PART), strict=True)
        return torch.cat([score(part, claimed) for part, claimed in pairs])


def score_rise(score: Score, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``score`` [N] of ``x`` [N, ...] that claim ``y`` [N], and ∇_x of its mean, of x's shape; both detached."""
    values, slopes = [], []
    for part, claimed in zip(torch.split(x.detach(), PART), torch.split(y, PART), strict=True):
        with torch.enable_grad():
            each = score(part.requires_grad_(), claimed)
            slopes.append(torch.autograd.grad(each.sum() / max(1, len(x)), part)[0])
        values.append(each.detach())
    return torch.cat(values), torch.cat(slopes)


def historical_state(team: Team, round: int, model: nn.Module) -> dict[str, Tensor]:
    """θ_h of ``round`` as the team knows it, by name; ``model`` is what the server sent in it.

    To be asked in every round in which somebody of the team is sent a model: see the module for what comes of it. One
    that is for several rounds, `federation.batches_per_reply`, counts once.
    """
    sent_in = round - round % team.config.federation.batches_per_reply

    def look() -> dict[str, Tensor]:
        current = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        before = team.cache.kept(_KIND)
        first = current if before is None else before["first"]
        (history,) = team.config.history.make().build([first] * team.config.training.burn_in.epochs)
        if before is not None:
            history.restore(before["history"])
        if before is None or before["round"] < sent_in:
            history.observe(current)
            team.cache.keep(_KIND, {"round": sent_in, "first": first, "history": history.save()})
        return dict(history.state)

    return team.cache.once("historical", sent_in, look)


def _each(chosen: Tensor, like: Tensor) -> Tensor:
    """`chosen` [N] in as many dimensions as `like` [N, ...]."""
    return chosen.to(like.device).view(-1, *[1] * (like.dim() - 1))
