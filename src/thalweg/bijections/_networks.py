"""Conditioners: small networks from a vector to a vector, zero at the start."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Float, Seed, from_numpy, numpy_rng, register

INPUT_LIMIT = 1e4
"""Inputs are clipped here: a conditioner's output stays finite, and a masked product never meets 0 * inf."""


def silu(x: Array) -> Array:
    """The product x sigmoid(x), by way of tanh: cheaper on a CPU than an exponential and a division."""
    return 0.5 * x * (1 + jnp.tanh(0.5 * x))


register(silu, "thalweg.silu")


def _layer(weight: Array, bias: Array, h: Array) -> Array:
    """Weight times h plus bias, for one vector h or the columns of a matrix."""
    return weight @ h + (bias if h.ndim == 1 else bias[:, None])


def _last_layer(weight: Array, bias: Array, h: Array) -> Array:
    """The same, the bias as one more column: left to be added, XLA adds it anew wherever an output is used."""
    if h.ndim == 1:
        return weight @ h + bias
    return jnp.concatenate([weight, bias[:, None]], axis=1) @ jnp.concatenate([h, jnp.ones_like(h[:1])])


def join_context(x: Array, context: Array | None) -> Array:
    """A network's input: the point's numbers and the context's; either may have a batch axis after its own."""
    if context is None:
        return x
    if x.ndim > context.ndim:
        context = jnp.broadcast_to(context[:, None], (*context.shape, x.shape[1]))
    return jnp.concatenate([x, context])


def _draw_layers(sizes: list[int], seed: Seed) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Weights N(0, 1 / fan-in), the last layer and all biases zero; drawn with NumPy, so nothing is compiled."""
    rng = numpy_rng(seed)
    weights = [rng.standard_normal((o, i)) / np.sqrt(max(i, 1)) for i, o in pairwise(sizes)]
    weights[-1] = np.zeros_like(weights[-1])
    biases = [np.zeros(o) for o in sizes[1:]]
    return tuple(map(from_numpy, weights)), tuple(map(from_numpy, biases))


@register
class MLP(eqx.Module):
    """A fully connected network, (in_size,) to (out_size,), whose output is zero at the start.

    Args:
        in_size: length of the input; 0 gives a trainable constant.
        out_size: length of the output.
        width: of each hidden layer.
        depth: number of hidden layers.
        activation: between layers; to be saved it must be registered (the usual ones of `jax.nn` are).
        seed: an int or a JAX key.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activation: Callable[[Any], Any] = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        width: int = 64,
        depth: int = 2,
        activation: Callable[[Any], Any] = silu,
        seed: Seed = 0,
    ) -> None:
        self.weights, self.biases = _draw_layers([in_size, *[width] * depth, out_size], seed)
        self.activation = activation

    def __call__(self, x: Float[Array, "in_size ..."]) -> Float[Array, "out_size ..."]:
        """The output for one input, or for each column."""
        h = jnp.clip(x, -INPUT_LIMIT, INPUT_LIMIT)
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self.activation(_layer(w, b, h))
        return _last_layer(self.weights[-1], self.biases[-1], h)


def _hidden_degrees(size: int, context: int, width: int) -> np.ndarray:
    """How many inputs a hidden unit may read, in sequence."""
    least = 0 if context or size == 1 else 1
    return least + np.arange(width) % max(size - least, 1)


def units_by_degree(size: int, context: int, width: int, degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices of hidden units, whether they are real): those of degree 0, then of 1, ..., as many of each."""
    found = [np.flatnonzero(_hidden_degrees(size, context, width) == m) for m in range(degrees)]
    most = max(map(len, found))
    real = np.array([np.arange(most) < len(f) for f in found])
    return np.concatenate([np.pad(f, (0, most - len(f))) for f in found]), real.ravel()


@lru_cache(maxsize=128)
def _autoregressive_masks(size: int, context: int, n_params: int, width: int, depth: int) -> tuple[np.ndarray, ...]:
    """Masks of a MADE (Germain et al. 2015), degrees in sequence; context inputs have degree 0."""
    inputs = np.concatenate([np.arange(1, size + 1), np.zeros(context, int)])
    hidden = _hidden_degrees(size, context, width)
    degrees = [inputs, *[hidden] * depth]
    masks = [after[:, None] >= before[None, :] for before, after in pairwise(degrees)]
    outputs = np.tile(np.arange(1, size + 1), n_params)
    return (*masks, outputs[:, None] > degrees[-1][None, :])


@register
class MaskedMLP(eqx.Module):
    """A MADE: (size,) and a context to (n_params, size), where column i depends on inputs before i and the context.

    Args:
        size: length of the input.
        n_params: rows of the output.
        context_size: length of the context, 0 for none.
        width: of each hidden layer.
        depth: number of hidden layers.
        activation: between layers.
        seed: an int or a JAX key.

    Source: Germain et al. 2015.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    size: int = eqx.field(static=True)
    n_params: int = eqx.field(static=True)
    context_size: int = eqx.field(static=True)
    activation: Callable[[Any], Any] = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        n_params: int,
        *,
        context_size: int = 0,
        width: int = 64,
        depth: int = 2,
        activation: Callable[[Any], Any] = silu,
        seed: Seed = 0,
    ) -> None:
        sizes = [size + context_size, *[width] * depth, n_params * size]
        self.weights, self.biases = _draw_layers(sizes, seed)
        self.size, self.n_params, self.context_size, self.activation = size, n_params, context_size, activation

    def masked_weights(self) -> list[Array]:
        """The weights, zero where a layer may not read."""
        depth = len(self.weights) - 1
        width = self.weights[0].shape[-2]
        masks = _autoregressive_masks(self.size, self.context_size, self.n_params, width, depth)
        return [jnp.where(mask, w, 0) for mask, w in zip(masks, self.weights, strict=True)]

    def __call__(self, x: Float[Array, "size ..."], context: Array | None) -> Float[Array, "n_params size ..."]:
        """The output for one input, or for each column."""
        h = jnp.clip(join_context(x, context), -INPUT_LIMIT, INPUT_LIMIT)
        *hidden, last = zip(self.masked_weights(), self.biases, strict=True)
        for w, b in hidden:
            h = self.activation(_layer(w, b, h))
        return _last_layer(*last, h).reshape(self.n_params, *x.shape)
