"""What a fit minimises."""

from thalweg.objectives._forward_kl import ForwardKL
from thalweg.objectives._importance import ImportanceWeighted, Renyi
from thalweg.objectives._objective import AbstractObjective
from thalweg.objectives._reverse_kl import Annealing, ReverseKL
from thalweg.objectives._sum import Sum
from thalweg.objectives._terms import log_density_of_batch

__all__ = [
    "AbstractObjective",
    "Annealing",
    "ForwardKL",
    "ImportanceWeighted",
    "Renyi",
    "ReverseKL",
    "Sum",
    "log_density_of_batch",
]
