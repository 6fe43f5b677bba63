"""How far an image is from what its class looks like."""

from torch import Tensor

from fedmd.defense.samples.baselines.reference import pixels, scores, unmeasured
from fedmd.defense.samples.outputs import Answers


def pixel_distance(answers: Answers) -> Tensor:
    """‖x - μ_y‖₂ [N], μ_y the mean image of the trusted samples of the claimed class y; pixels in [0, 1].

    The distance behind the sphere defence of Steinhardt et al., Certified Defenses for Data Poisoning Attacks,
    NeurIPS 2017. It looks at no model.
    """
    compared = pixels(answers)
    if compared is None:
        return unmeasured(answers)
    return scores(answers, (compared.values - compared.class_means()).norm(dim=1))
