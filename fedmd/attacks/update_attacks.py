"""What a malicious client sends in place of its honest update: one pure function from knowledge to vector an attack.

An update Δ is a weight difference, to be added to the server's θ; a gradient of the papers is −Δ up to a factor.
Colluders that know the same send the same vector, except for noise.

[B19] Baruch et al., A Little Is Enough: Circumventing Defenses for Distributed Learning, NeurIPS 2019.
[B20] Bagdasaryan et al., How To Backdoor Federated Learning, AISTATS 2020.
[F21] Fraboni et al., Free-rider Attacks on Model Aggregation in Federated Learning, AISTATS 2021.
[X20] Xie et al., Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation, UAI 2020.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from fedmd.attacks.accumulative_update import bounded
from fedmd.attacks.distance_attacks import min_max, min_sum, spread


@dataclass(frozen=True)
class Knowledge:
    """What one malicious client knows when it makes its update.

    own: Δ of its own training [d]: honest, or on data it poisoned (label_flip, replacement).
    honest: updates it can see [n, d], those of all colluders or of all clients, as they would be sent honestly.
    clients, colluders: how many clients were sampled this round, and how many of them are malicious.
    generator: the source of noise, a CPU generator of this client and round.
    scale: the attack's strength; None takes the attack's own default. What it means: see each attack.
    perturbation: p of Min-Max and Min-Sum, a name in PERTURBATIONS.
    push: what the accumulative attack adds to Δ this round [d], see `accumulative_update`.
    norm_bound: the accumulative update is at most so many median honest norms long; None sets no bound.

    Raises:
        ValueError: shapes or counts do not fit together.
    """

    own: Tensor
    honest: Tensor
    clients: int
    colluders: int
    generator: torch.Generator
    scale: float | None = None
    perturbation: str = "inverse_std"
    push: Tensor | None = None
    norm_bound: float | None = 1.0

    def __post_init__(self) -> None:
        if self.honest.dim() != 2 or not len(self.honest) or self.honest.shape[1:] != self.own.shape:
            raise ValueError(
                f"honest must be [n, d] beside own [d], got {list(self.honest.shape)}, {list(self.own.shape)}"
            )
        if not 1 <= self.colluders <= self.clients:
            raise ValueError(f"colluders must be between 1 and clients, got {self.colluders} of {self.clients}")
        if self.push is not None and self.push.shape != self.own.shape:
            raise ValueError(f"push must have own's shape {list(self.own.shape)}, got {list(self.push.shape)}")


def alie_z(clients: int, colluders: int) -> float:
    """z_max of [B19]: how many standard deviations the colluders may be off and still have a majority's support.

        s = ⌊n/2 + 1⌋ − m,   z = Φ⁻¹((n − m − s) / (n − m))

    With a majority of their own the colluders need no support and the paper's z is infinite; we let them seek that
    of one. Where z is negative (a lone attacker) there is no room, and we return 0.
    """
    honest = clients - colluders
    supporters = max(1, math.floor(clients / 2 + 1) - colluders)
    share = (honest - supporters) / honest if honest else 0.0
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0


def noise(knowledge: Knowledge, factor: float) -> Tensor:
    """N(0, σ² I) [d] with σ = ``factor`` times the root mean square of the honest updates' coordinates.

    So its length is about ``factor`` honest updates. Drawn on the CPU: the same on every device.
    """
    honest = knowledge.honest
    rms = float(torch.linalg.vector_norm(honest)) / math.sqrt(honest.numel())
    draw = torch.randn(knowledge.own.shape, generator=knowledge.generator, dtype=torch.float32)
    return (factor * rms) * draw.to(knowledge.own)


def _scale(knowledge: Knowledge, default: float) -> float:
    return default if knowledge.scale is None else knowledge.scale


def accumulative(knowledge: Knowledge) -> Tensor:
    """Δ + η · push, shortened to ``norm_bound`` median honest norms: eq (4). Scale: η, 1.

    Raises:
        ValueError: there is no push.
    """
    if knowledge.push is None:
        raise ValueError("the accumulative attack needs a push, see accumulative_update")
    update = knowledge.own + _scale(knowledge, 1.0) * knowledge.push
    if knowledge.norm_bound is None:
        return update
    return bounded(update, knowledge.norm_bound * float(torch.linalg.vector_norm(knowledge.honest, dim=1).median()))


def sign_flip(knowledge: Knowledge) -> Tensor:
    """−s Δ of the client's own update. Scale: s, 1. (byzfl's flips the mean of the honest ones.)"""
    return -_scale(knowledge, 1.0) * knowledge.own


def gaussian(knowledge: Knowledge) -> Tensor:
    """Noise in place of the update. Scale: its length in honest updates, 10. (byzfl's has a fixed σ.)"""
    return noise(knowledge, _scale(knowledge, 10.0))


def label_flip(knowledge: Knowledge) -> Tensor:
    """The client's own update as it is: the poison is in the labels it was trained on. No scale."""
    return knowledge.own


def alie(knowledge: Knowledge) -> Tensor:
    """A little is enough [B19]: μ − z σ coordinate by coordinate, over the honest updates seen.

    Scale: z, `alie_z` of the round's clients and colluders.
    """
    z = _scale(knowledge, alie_z(knowledge.clients, knowledge.colluders))
    return knowledge.honest.mean(dim=0) - z * spread(knowledge.honest)


def ipm(knowledge: Knowledge) -> Tensor:
    """Inner-product manipulation [X20]: −ε μ of the honest updates. Scale: ε, 2.

    Small ε (0.1) deceives Krum; the plain mean turns round only above ε = (n − m)/m.
    """
    return -_scale(knowledge, 2.0) * knowledge.honest.mean(dim=0)


def replacement(knowledge: Knowledge) -> Tensor:
    """Model replacement [B20]: s times the update trained on backdoored data. Scale: s, n/m.

    With n/m, m colluders that trained alike put their model in the place of the plain average (server rate 1,
    equal weights), once the honest updates have become small.
    """
    return _scale(knowledge, knowledge.clients / knowledge.colluders) * knowledge.own


def free_rider(knowledge: Knowledge) -> Tensor:
    """A disguised free rider [F21]: nothing learned, only noise. Scale: its length in honest updates, 0.1; 0 is plain.

    [F21] lets the noise decay by a schedule set from the first rounds; ours follows the honest updates seen, which
    shrink as the model converges.
    """
    return noise(knowledge, _scale(knowledge, 0.1))


# attack.name -> the update it sends
UPDATE_ATTACKS: dict[str, Callable[[Knowledge], Tensor]] = {
    "accumulative": accumulative,
    "sign_flip": sign_flip,
    "gaussian": gaussian,
    "label_flip": label_flip,
    "alie": alie,
    "ipm": ipm,
    "min_max": lambda knowledge: min_max(knowledge.honest, knowledge.perturbation),
    "min_sum": lambda knowledge: min_sum(knowledge.honest, knowledge.perturbation),
    "replacement": replacement,
    "free_rider": free_rider,
}
