"""Runs and studies, composed by Hydra: here, in processes or on Ray, resumed. Plural, as `fedmd.run` is a function."""
