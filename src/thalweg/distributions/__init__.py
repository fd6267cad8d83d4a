"""Distributions to draw from and to score: exact (base, transformed) and auxiliary (augmented)."""

from thalweg.distributions._augmented import Augmented
from thalweg.distributions._base import AbstractBase, StandardNormal, StudentT
from thalweg.distributions._defensive import DefensiveDraws, defensive_draws
from thalweg.distributions._distribution import (
    AbstractAuxiliaryDistribution,
    AbstractDistribution,
    AbstractSampler,
    LogProbBounds,
)
from thalweg.distributions._indexed import ContinuouslyIndexed
from thalweg.distributions._mixture import Mixture
from thalweg.distributions._shaped_bases import LowRankNormal, Normal, TrainableStudentT, UniformBox
from thalweg.distributions._transformed import Transformed

__all__ = [
    "AbstractAuxiliaryDistribution",
    "AbstractBase",
    "AbstractDistribution",
    "AbstractSampler",
    "Augmented",
    "ContinuouslyIndexed",
    "DefensiveDraws",
    "LogProbBounds",
    "LowRankNormal",
    "Mixture",
    "Normal",
    "StandardNormal",
    "StudentT",
    "TrainableStudentT",
    "Transformed",
    "UniformBox",
    "defensive_draws",
]
