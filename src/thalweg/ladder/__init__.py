"""The rungs behind `flow="auto"`, and how they are climbed."""

from thalweg.ladder._climb import Climb
from thalweg.ladder._fits import Budget, fit_gaussians_each
from thalweg.ladder._rungs import RUNGS
from thalweg.ladder._turn import turned

__all__ = ["RUNGS", "Budget", "Climb", "fit_gaussians_each", "turned"]
