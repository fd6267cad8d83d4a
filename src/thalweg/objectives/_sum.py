"""Several objectives as one."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._core import Array, PRNGKeyArray, Scalar, register, requirement
from thalweg.objectives._objective import AbstractObjective


@register
class Sum(AbstractObjective):
    r"""$\sum_i c_i L_i$: say the reverse KL, exact where q is, and a share of the forward KL from draws that q lacks.

    Args:
        objectives: the first one's named parts are told.
        shares: c_i, one each.

    Raises:
        ValueError: if there are none, or the lengths differ.
    """

    objectives: tuple[AbstractObjective, ...]
    shares: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, objectives: tuple[AbstractObjective, ...], shares: tuple[float, ...]) -> None:
        if not objectives or len(objectives) != len(shares):
            raise ValueError(requirement("shares", f"be one for each of the {len(objectives)} objectives", shares))
        self.objectives, self.shares = tuple(objectives), tuple(float(c) for c in shares)

    @property
    def evaluations(self) -> int:
        """Those of all."""
        return sum(o.evaluations for o in self.objectives)

    @property
    def steps_of_change(self) -> int:
        """The longest of all."""
        return max(o.steps_of_change for o in self.objectives)

    def at(self, index: Array) -> "Sum":
        """Each at a step of a fit."""
        return Sum(tuple(o.at(index) for o in self.objectives), self.shares)

    def __call__(self, distribution: Any, key: PRNGKeyArray, batch: Any = None) -> tuple[Scalar, dict[str, Scalar]]:
        """(the sum of their estimates, the first one's parts); `batch` is handed to each."""
        keys = jax.random.split(key, len(self.objectives))
        each = [o(distribution, k, batch) for o, k in zip(self.objectives, keys, strict=True)]
        losses = jnp.stack([loss for loss, _ in each])
        return losses @ jnp.asarray(self.shares, losses.dtype), each[0][1]
