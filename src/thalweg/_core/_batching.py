"""Batching is vmap, here and nowhere else; this also picks the memory layout."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core._checks import check_trailing_shape
from thalweg._core._random import in_precision
from thalweg._core._types import Array, Shape


def over_batch(
    function: Callable[..., Any],
    arguments: dict[str, tuple[Array | None, Shape | None]],
    *,
    takes_batches: bool = False,
) -> Any:
    """Apply a function of single points to batches of points.

    Args:
        function: takes one point per argument, returns a pytree of arrays.
        arguments: name -> (array, shape of one point); the axes before that shape are batch axes and broadcast
            against each other. A shape of None passes the argument through as it is.
        takes_batches: whether the function also takes, and gives, arrays with one batch axis after a point's own; the
            first argument then always has it, the others only where they come in batches.

    Returns:
        The outputs, with the batch axes leading.

    Inside, the batch is the *last* axis: elementwise maps over a point's few coordinates then run along contiguous
    memory, which is worth up to 5x for splines on a CPU; the transpositions at the door are cheap beside it.
    """
    batched = {k: (a, s) for k, (a, s) in arguments.items() if a is not None and s is not None}
    leading = {k: check_trailing_shape(k, a, s) for k, (a, s) in batched.items()}
    batch = jnp.broadcast_shapes(*leading.values()) if leading else ()
    if batch == ():
        return function(*(a for a, _ in arguments.values()))
    values, axes = [], []
    for i, (name, (array, shape)) in enumerate(arguments.items()):
        shared = name not in batched or (leading[name] == () and not (takes_batches and i == 0))
        if shared or array is None or shape is None:
            values.append(array)
            axes.append(None)
        else:
            flat = jnp.broadcast_to(array, (*batch, *shape)).reshape(math.prod(batch), *shape)
            values.append(jnp.moveaxis(flat, 0, -1))
            axes.append(-1)
    out = (function if takes_batches else jax.vmap(function, in_axes=tuple(axes), out_axes=-1))(*values)
    return jax.tree.map(lambda o: jnp.moveaxis(o, -1, 0).reshape(*batch, *o.shape[:-1]), out)


def in_pieces(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """Apply a jitted function to pieces of `size` rows, so that no other number of rows compiles it again.

    Args:
        function: the rows of a piece -> a pytree of arrays, rows first; such as `rows_jit` makes.
        rows: a pytree of arrays, rows first.
        size: rows a piece; the last one is padded by repeating its last row.

    Returns:
        The outputs for all rows, as NumPy arrays.
    """
    n = len(jax.tree.leaves(rows)[0])
    own = jax.tree.map(lambda a: in_precision(np.asarray(a)), rows)
    out = []
    for start in range(0, n, size):
        kept = slice(start, start + size) if start + size <= n else np.minimum(np.arange(start, start + size), n - 1)
        out.append(function(jax.tree.map(lambda a, kept=kept: a[kept], own)))
    return jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs])[:n], *out)
