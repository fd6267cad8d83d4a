"""Targets with known answers: evidence, exact draws, modes."""

from thalweg.problems._energies import energy
from thalweg.problems._modes import gmm40, lattice, many_well, ring
from thalweg.problems._problem import Problem
from thalweg.problems._smooth import banana, correlated_gaussian, funana, funnel, gaussian, student_t

__all__ = [
    "Problem",
    "banana",
    "correlated_gaussian",
    "energy",
    "funana",
    "funnel",
    "gaussian",
    "gmm40",
    "lattice",
    "many_well",
    "ring",
    "student_t",
]
