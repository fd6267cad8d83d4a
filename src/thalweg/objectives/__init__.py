"""What a fit minimises."""

from thalweg.objectives._objective import AbstractObjective
from thalweg.objectives._reverse_kl import ReverseKL, log_density_of_batch

__all__ = ["AbstractObjective", "ReverseKL", "log_density_of_batch"]
