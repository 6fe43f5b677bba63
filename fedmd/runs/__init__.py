"""Runs and studies: composed by Hydra, carried out on Ray, resumed. Plural, because `fedmd.run` is a function."""
