"""The one file that knows Optax."""

from typing import Any

import jax

from thalweg._core import PyTree, import_guest

_B1, _B2, _MAX_NORM = 0.9, 0.999, 100.0


def _adam() -> Any:
    optax = import_guest("optax", "core")
    return optax.chain(optax.clip_by_global_norm(_MAX_NORM), optax.scale_by_adam(_B1, _B2))


def init_optimiser(params: PyTree) -> PyTree:
    """The state of Adam (Kingma and Ba 2015) with gradients clipped to a global norm of 100."""
    return _adam().init(params)


def optimiser_step(gradient: PyTree, state: PyTree, params: PyTree, learning_rate: Any) -> tuple[PyTree, PyTree]:
    """(parameters after one step of size `learning_rate`, new state)."""
    optax = import_guest("optax", "core")
    # Optax mixes ints and floats, which a user's strict setting would refuse
    with jax.numpy_dtype_promotion("standard"):
        updates, state = _adam().update(gradient, state, params)
        return optax.apply_updates(params, optax.tree.scale(-learning_rate, updates)), state
