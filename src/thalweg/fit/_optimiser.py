"""The one file that knows Optax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, PyTree, Scalar, import_guest

_B1, _B2 = 0.9, 0.999
_SPIKE, _MEMORY = 10.0, 0.95


class OptimiserState(NamedTuple):
    """Adam's moments, and the gradient's usual norm (0 before the first step)."""

    adam: PyTree
    usual: Scalar


def _adam() -> Any:
    return import_guest("optax", "core").scale_by_adam(_B1, _B2)


def init_optimiser(params: Array) -> OptimiserState:
    """The state of Adam (Kingma and Ba 2015), gradients clipped to 10 times their usual norm.

    A draw where a flow is all but folded has a gradient a thousand times the others', after which Adam would walk off
    for ten steps. The usual norm is an average over about 20 steps, of norms that are clipped already.
    """
    return OptimiserState(_adam().init(params), jnp.asarray(np.zeros((), params.dtype)))


def optimiser_step(
    gradient: Array, state: OptimiserState, params: Array, learning_rate: Any, good: Array
) -> tuple[Array, OptimiserState, Array]:
    """(parameters after one step of size `learning_rate`, new state, whether it was taken).

    It is where `good` holds and the gradient's norm is finite; else nothing changes. One look at the gradient serves
    the clipping and that: it halves the time of the step.
    """
    norm = jnp.sqrt(jnp.sum(gradient**2))
    good = good & jnp.isfinite(norm)
    limit = jnp.where(state.usual > 0, _SPIKE * state.usual, norm)
    clipped = jnp.minimum(norm, limit)
    # where the norm is 0, so is the gradient: not 0 / 0
    gradient = jnp.where(good, gradient * (clipped / jnp.where(norm > 0, norm, 1)), 0)
    usual = jnp.where(state.usual > 0, _MEMORY * state.usual + (1 - _MEMORY) * clipped, clipped)
    # Optax mixes ints and floats, which a user's strict setting would refuse
    with jax.numpy_dtype_promotion("standard"):
        updates, adam = _adam().update(gradient, state.adam, params)
        moved = params - learning_rate * updates
    new = (moved, OptimiserState(adam, usual))
    params, state = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, (params, state))
    return params, state, good
