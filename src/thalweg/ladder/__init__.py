"""The rungs behind `flow="auto"`, and when to climb them."""

from thalweg.ladder._climb import Climb
from thalweg.ladder._rungs import Budget

__all__ = ["Budget", "Climb"]
