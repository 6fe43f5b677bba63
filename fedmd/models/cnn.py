"""The small convolutional net of McMahan et al. (Communication-Efficient Learning of Deep Networks, AISTATS 2017)."""

from pydantic import Field
from torch import nn

from fedmd.config import Count, Section
from fedmd.models.base import Model
from fedmd.models.normalise import Normalise
from fedmd.registry import register_model


@register_model("cnn")
class Cnn(Model):
    """Two convolutions and two linear layers, no batch norm (McMahan et al., AISTATS 2017)."""

    class Params(Section):
        """How wide."""

        width: Count = Field(16, description="channels of the first convolution; 32 is McMahan's net for MNIST")

    params: Params

    def build(self, *, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
        """Twice (5x5 convolution, ReLU, 2x2 max-pool), then two linear layers; images of 4x4 pixels and up.

        `width`, 2 * `width` channels and 16 * `width` hidden units: width 32 is McMahan's net for MNIST exactly
        (1,663,370 parameters).
        """
        height, width = image_size
        features = self.params.width
        return nn.Sequential(
            Normalise(channels),
            nn.Conv2d(channels, features, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(features, 2 * features, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * features * (height // 4) * (width // 4), 16 * features),
            nn.ReLU(),
            nn.Linear(16 * features, classes),
        )
