"""Optimisation of an objective, and the Gaussian fit that flows start from."""

from thalweg.fit._curvature import CurvatureFit, CurvatureState
from thalweg.fit._density import DensityFit, DensityState
from thalweg.fit._fit import Fit, FitState
from thalweg.fit._gaussian import GaussianFit, GaussianState
from thalweg.fit._sketched import MeanFieldFit, MeanFieldState, SketchedFit, SketchedState

__all__ = [
    "CurvatureFit",
    "CurvatureState",
    "DensityFit",
    "DensityState",
    "Fit",
    "FitState",
    "GaussianFit",
    "GaussianState",
    "MeanFieldFit",
    "MeanFieldState",
    "SketchedFit",
    "SketchedState",
]
