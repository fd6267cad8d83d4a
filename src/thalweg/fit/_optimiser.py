"""The one file that knows Optax."""

from typing import Any

import jax
import jax.numpy as jnp

from thalweg._core import Array, PyTree, import_guest

_B1, _B2, _MAX_NORM = 0.9, 0.999, 100.0


def _adam() -> Any:
    return import_guest("optax", "core").scale_by_adam(_B1, _B2)


def init_optimiser(params: Array) -> PyTree:
    """The state of Adam (Kingma and Ba 2015) with gradients clipped to a norm of 100."""
    return _adam().init(params)


def optimiser_step(
    gradient: Array, state: PyTree, params: Array, learning_rate: Any, good: Array
) -> tuple[Array, PyTree, Array]:
    """(parameters after one step of size `learning_rate`, new state, whether it was taken).

    It is where `good` holds and the gradient's norm is finite; else nothing changes. One look at the gradient serves
    the clipping and that: it halves the time of the step.
    """
    norm = jnp.sqrt(jnp.sum(gradient**2))
    good = good & jnp.isfinite(norm)
    # where the norm is 0 the quotient is inf, and the minimum 1
    gradient = jnp.where(good, gradient * jnp.minimum(1, _MAX_NORM / norm), 0)
    # Optax mixes ints and floats, which a user's strict setting would refuse
    with jax.numpy_dtype_promotion("standard"):
        updates, new = _adam().update(gradient, state, params)
        moved = params - learning_rate * updates
    params, state = jax.tree.map(lambda a, b: jnp.where(good, a, b), (moved, new), (params, state))
    return params, state, good
