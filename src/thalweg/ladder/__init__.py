"""The rungs behind `flow="auto"`, and when to climb them."""

from thalweg.ladder._climb import Climb
from thalweg.ladder._rungs import Budget, gaussian_rungs
from thalweg.ladder._turn import turned

__all__ = ["Budget", "Climb", "gaussian_rungs", "turned"]
