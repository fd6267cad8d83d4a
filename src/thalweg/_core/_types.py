"""The array types that annotations use, in one place."""

from typing import Any, Literal

from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

Shape = tuple[int, ...]
"""The shape of one point, or of a batch of points."""

Scalar = Float[Array, ""]
"""One real number, a 0-d array."""

Seed = Any
"""An int or a JAX key; `thalweg._core.as_key` turns either into a key."""

Cost = Literal["direct", "sequential", "root"]
"""How a direction of a bijection is computed: a formula, one coordinate after another, or a scalar root."""

__all__ = ["Array", "Bool", "Cost", "Float", "Int", "Key", "PRNGKeyArray", "PyTree", "Scalar", "Seed", "Shape"]
