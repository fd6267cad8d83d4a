"""A masked network evaluated input by input: the inverse of an autoregressive map in one pass."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thalweg._core import Array
from thalweg.bijections._networks import INPUT_LIMIT, MaskedMLP, units_by_degree

_ITERATE_LIMIT = 1e30
"""Inverses are clipped here: a coordinate that is wild must not make the others overflow."""
_BLOCK = 2
"""Coordinates a turn of the loop; more compile longer and are no faster."""


class _Ordered(NamedTuple):
    """A MADE whose hidden units are in the order of their degree, equally many a degree; numbers of inputs padded.

    Attributes:
        weights: of each hidden layer.
        biases: of each hidden layer, (units, n), with what the context gives.
        last: weights of the outputs, (inputs, n_params, units).
        last_bias: (inputs, n_params, n).
        units: hidden units a degree.
    """

    weights: list[Array]
    biases: list[Array]
    last: Array
    last_bias: Array
    units: int


def _in_order(network: MaskedMLP, context: Array | None, steps: int, n: int) -> _Ordered:
    size, depth = network.size, len(network.weights) - 1
    order, real = units_by_degree(size, network.context_size, network.weights[0].shape[-2], steps)
    extra = steps - size

    def rows(array: Array) -> Array:
        return jnp.where(real[:, None], array[order], 0)

    weights, biases = [], []
    for k, (w, b) in enumerate(zip(network.masked_weights(), network.biases, strict=True)):
        b = jnp.broadcast_to(b[:, None], (len(b), n))
        if k == 0 and context is not None:
            b = b + w[:, size:] @ context.reshape(len(context), -1)
        w = jnp.pad(w[:, :size], ((0, 0), (0, extra))) if k == 0 else rows(w.T).T
        if k < depth:
            w, b = rows(w), rows(b)
        else:
            w, b = (a.reshape(-1, size, a.shape[1]).swapaxes(0, 1) for a in (w, b))
            w, b = (jnp.pad(a, ((0, extra), (0, 0), (0, 0))) for a in (w, b))
        weights.append(w)
        biases.append(b)
    return _Ordered(weights[:-1], biases[:-1], weights[-1], biases[-1], len(order) // steps)


def invert_in_order(
    network: MaskedMLP, solve: Callable[[Array, Array], Array], y: Array, context: Array | None
) -> Array:
    """The x with x_i = solve(y_i, params_i), where params_i is what the network makes of the x before i.

    Every hidden unit is evaluated once, as soon as what it reads is known. What a block of coordinates gets from
    earlier ones is one product a layer; within the block, units and outputs are computed in turn.

    Args:
        network: x and context to (n_params, d).
        solve: (1, n) and (n_params, 1, n) to (1, n).
        y: (d,), or (d, n).
        context: (c,), (c, n) or None.
    """
    columns = y.reshape(len(y), -1)
    size, n = columns.shape
    steps = -(-size // _BLOCK) * _BLOCK
    columns = jnp.pad(columns, ((0, steps - size), (0, 0)))
    weights, biases, last, last_bias, q = _in_order(network, context, steps, n)
    depth = len(weights)

    def seen(parts: list[Array]) -> list[Array]:
        return [jnp.clip(parts[0], -INPUT_LIMIT, INPUT_LIMIT), *parts[1:]]

    def block(c: Array, known: list[Array]) -> list[Array]:
        """Known: x, then the units of each hidden layer; zero where not known yet."""

        def cut(array: Array, width: int, axis: int = 0) -> Array:
            return jax.lax.dynamic_slice_in_dim(array, c * width, width, axis)

        # of every layer: its weights to the block, what earlier blocks give, and the weights within the block
        lengths = [_BLOCK * (q if k else 1) for k in range(depth + 1)]
        before = seen(known)
        to_block = [cut(w, _BLOCK * q) for w in weights]
        given = [w @ h + cut(b, _BLOCK * q) for w, h, b in zip(to_block, before[:-1], biases, strict=True)]
        within = [cut(w, lengths[k], 1) for k, w in enumerate(to_block)]
        to_params = cut(last, _BLOCK)
        params_given = jnp.tensordot(to_params, before[-1], 1) + cut(last_bias, _BLOCK)
        params_within = cut(to_params, lengths[-1], 2)
        goal = cut(columns, _BLOCK)
        new = [jnp.zeros((0, n), y.dtype) for _ in known]
        for j in range(_BLOCK):
            for k in range(depth):
                pre, weight = (a[j * q : (j + 1) * q] for a in (given[k], within[k]))
                units = network.activation(pre + weight[:, : len(new[k])] @ seen(new)[k])
                new[k + 1] = jnp.concatenate([new[k + 1], units])
            params = params_given[j] + params_within[j][:, : len(new[-1])] @ seen(new)[-1]
            x = solve(goal[j : j + 1], params[:, None])
            new[0] = jnp.concatenate([new[0], jnp.clip(x, -_ITERATE_LIMIT, _ITERATE_LIMIT)])
        return [
            jax.lax.dynamic_update_slice_in_dim(old, part, c * len(part), 0)
            for old, part in zip(known, new, strict=True)
        ]

    start = [jnp.zeros((steps * (q if k else 1), n), y.dtype) for k in range(depth + 1)]
    return jax.lax.fori_loop(0, steps // _BLOCK, block, start)[0][:size].reshape(y.shape)
