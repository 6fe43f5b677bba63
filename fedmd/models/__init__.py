"""Nets by name. Every one takes images in [0, 1]; normalisation is part of the model."""

from fedmd.models.registry import MODELS, build_model, model_for

__all__ = ["MODELS", "build_model", "model_for"]
