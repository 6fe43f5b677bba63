"""The two-convolution net of the federated-learning literature (McMahan et al., AISTATS 2017)."""

from torch import nn

from fedmd.config import ModelConfig
from fedmd.models.normalise import Normalise


def cnn(config: ModelConfig, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Twice (5x5 convolution, ReLU, 2x2 max-pool), then two linear layers; images of 4x4 pixels and up.

    `width`, 2 * `width` channels and 16 * `width` hidden units: width 32 is McMahan's net for MNIST exactly
    (1,663,370 parameters).
    """
    height, width = image_size
    features = config.width
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
