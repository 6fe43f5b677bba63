"""The nets, one class each, and how one is built from the configuration."""

from fedmd.models.base import Model, build_model, check_model, model_for
from fedmd.models.normalise import Normalise

__all__ = ["Model", "Normalise", "build_model", "check_model", "model_for"]
