"""Optimisation of an objective, and the Gaussian fit that flows start from."""

from thalweg.fit._fit import Fit, FitState
from thalweg.fit._gaussian import GaussianFit, GaussianState

__all__ = ["Fit", "FitState", "GaussianFit", "GaussianState"]
