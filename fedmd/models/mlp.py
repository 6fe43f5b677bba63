"""A net without convolutions: for features that are no picture."""

from pydantic import Field
from torch import nn

from fedmd.config import Count, Section
from fedmd.models.base import Model
from fedmd.registry import register_model


@register_model("mlp")
class Mlp(Model):
    """Two linear layers, no batch norm: for tables and embedded texts."""

    class Params(Section):
        """How wide."""

        width: Count = Field(64, description="hidden units")

    params: Params

    def build(self, *, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
        """Flatten, hidden units, ReLU, logits; of any shape."""
        features = channels * image_size[0] * image_size[1]
        hidden = self.params.width
        return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))
