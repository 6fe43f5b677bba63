"""A net."""

from pydantic import Field
from torch import nn

from fedmd.config import Count, Section
from fedmd.models.base import Model


class Perceptron(Model):
    """One hidden layer on the pixels."""

    class Params(Section):
        hidden: Count = Field(32, description="hidden units")

    params: Params

    def build(self, *, channels, classes, image_size):
        """Images [N, channels, *image_size] in [0, 1] to logits [N, classes]."""
        pixels, hidden = channels * image_size[0] * image_size[1], self.params.hidden
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes))
