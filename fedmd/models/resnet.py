"""Residual nets: a small one for two cores, and the ResNet-18 of the published experiments."""

from pydantic import Field
from torch import Tensor, nn

from fedmd.config import Count, Section
from fedmd.models.base import Model
from fedmd.models.normalise import Normalise
from fedmd.registry import register_model


class ResidualBlock(nn.Module):
    """The basic block of He et al., CVPR 2016: relu(x + BN(conv(relu(BN(conv(x)))))), 3x3 convolutions.

    Where the shape changes, the shortcut is a 1x1 convolution with batch norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        out: Tensor = (inner + self.shortcut(x)).relu()
        return out


@register_model("resnet_small")
class SmallResNet(Model):
    """Three residual stages of width, 2 width and 4 width, with batch norm: for two CPU cores."""

    class Params(Section):
        """How wide."""

        width: Count = Field(16, description="channels of the first stage")

    params: Params

    def build(self, *, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
        """3x3 stem, a block each of `width`, 2 * `width`, 4 * `width` (strides 1, 2, 2), average pool, linear."""
        width = self.params.width
        return nn.Sequential(
            Normalise(channels),
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ResidualBlock(width, width, 1),
            ResidualBlock(width, 2 * width, 2),
            ResidualBlock(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, classes),
        )


@register_model("resnet18")
class ResNet18(Model):
    """ResNet-18 with a 3x3 stride-1 stem, its max-pool kept: the net of [AP21] and [MD23]."""

    def build(self, *, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
        """torchvision's ResNet-18 with another first convolution."""
        from torchvision.models import resnet18  # slow to import, and only needed here

        net = resnet18(num_classes=classes)
        net.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
        return nn.Sequential(Normalise(channels), net)
