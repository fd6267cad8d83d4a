"""The contract of every objective."""

import abc
from typing import Any

import equinox as eqx

from thalweg._core import Array, PRNGKeyArray, Scalar


class AbstractObjective(eqx.Module):
    """What a fit minimises: (distribution, key, batch) -> (loss, aux), a stochastic estimate from one key.

    `aux` holds named scalars for the record; the gradient of the loss is a part of its own and need not be the
    gradient of the loss's value (see the path gradient). `batch` is what this step sees of the data, None for all.
    """

    @property
    def evaluations(self) -> int:
        """Of a log density's gradient, at each call."""
        return 0

    @property
    def steps_of_change(self) -> int:
        """The steps of a fit after which it is the same at all; before, its values at two steps say nothing."""
        return 0

    def at(self, index: Array) -> "AbstractObjective":
        """The objective at a step of a fit; the same at all, unless it is annealed."""
        return self

    @abc.abstractmethod
    def __call__(self, distribution: Any, key: PRNGKeyArray, batch: Any = None) -> tuple[Scalar, dict[str, Scalar]]:
        """One estimate of the loss, with its named parts."""
