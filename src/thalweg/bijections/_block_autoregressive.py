"""A block neural autoregressive map: one masked monotone network, inverted coordinate by coordinate."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from thalweg._core import (
    Array,
    Cost,
    Scalar,
    Seed,
    Shape,
    check_positive_int,
    from_numpy,
    increasing_root,
    numpy_rng,
    register,
)
from thalweg.bijections._bijection import AbstractBijection

_LOG_LIMIT = 10.0
_INPUT_LIMIT = 1e4
_FIRST_GATE = -4.0


@lru_cache(maxsize=128)
def _block_masks(size: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(diagonal blocks, blocks below them) of a (size * rows, size * columns) matrix."""
    i, j = np.arange(size * rows)[:, None] // rows, np.arange(size * columns)[None, :] // columns
    return i == j, i > j


@register
class BlockAutoregressive(AbstractBijection):
    r"""$y_i = (1 - g_i)\, x_i + g_i\, n_i(x_i; x_{1 \dots i-1})$, n_i increasing in $x_i$.

    n is one network of tanh layers whose matrices are block lower triangular with positive diagonal blocks, rows of
    unit norm times a scale; the gate g = sigmoid of a free number is 0.02 at the start, so this starts near the
    identity, and keeps every slope positive and the image all of R^d. The log-determinant is that of the diagonal
    blocks. The inverse is d increasing scalar roots, one after another; its derivative is one triangular solve.

    Source: De Cao et al. 2019 (the gated residual form), after Huang et al. 2018.

    Args:
        size: d, the point's length.
        width: hidden units a coordinate.
        depth: hidden layers.
        seed: an int or a JAX key, for the first weights.
    """

    weights: tuple[Array, ...]
    log_norms: tuple[Array, ...]
    biases: tuple[Array, ...]
    gate: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "root"

    def __init__(self, size: int, *, width: int = 8, depth: int = 2, seed: Seed = 0) -> None:
        size, width = check_positive_int("size", size), check_positive_int("width", width)
        depth, rng = check_positive_int("depth", depth), numpy_rng(seed)
        shapes = [(size * o, size * i) for i, o in pairwise([1, *[width] * depth, 1])]
        # positive blocks are the exponential of what is here
        self.weights = tuple(from_numpy(rng.standard_normal(s)) for s in shapes)
        self.log_norms = tuple(from_numpy(np.zeros(s[0])) for s in shapes)
        self.biases = tuple(from_numpy(rng.standard_normal(s[0])) for s in shapes)
        self.gate = from_numpy(np.full(size, _FIRST_GATE))
        self.in_shape = (size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _matrices(self) -> list[tuple[Array, Array]]:
        """(the matrix, its diagonal blocks alone) of every layer."""
        out, d = [], self.in_shape[0]
        for w, log_norm in zip(self.weights, self.log_norms, strict=True):
            own, below = _block_masks(d, w.shape[-2] // d, w.shape[-1] // d)
            positive = jnp.where(own, jnp.exp(jnp.clip(w, -_LOG_LIMIT, _LOG_LIMIT)), 0)
            full = positive + jnp.where(below, w, 0)
            scale = jnp.exp(jnp.clip(log_norm, -_LOG_LIMIT, _LOG_LIMIT)) / jnp.linalg.norm(full, axis=1)
            out.append((full * scale[:, None], positive * scale[:, None]))
        return out

    def _run(self, x: Array, matrices: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        """(y, dy_i/dx_i); beyond the inputs' limit the network is constant."""
        inside = jnp.abs(x) < _INPUT_LIMIT
        h, slope = jnp.clip(x, -_INPUT_LIMIT, _INPUT_LIMIT), inside.astype(x.dtype)
        for i, ((full, own), b) in enumerate(zip(matrices, self.biases, strict=True)):
            h, slope = full @ h + b, own @ slope
            if i < len(matrices) - 1:
                h = jnp.tanh(h)
                slope = slope * (1 - h**2)
        gate = jax.nn.sigmoid(self.gate)
        return (1 - gate) * x + gate * h, (1 - gate) + gate * slope

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        y, slopes = self._run(x, self._matrices())
        return y, jnp.log(slopes).sum()

    def _solve(self, y: Array) -> Array:
        matrices = self._matrices()
        gate = jax.nn.sigmoid(self.gate)
        # the last layer sees numbers in (-1, 1)
        reach = gate * (jnp.abs(matrices[-1][0]).sum(1) + jnp.abs(self.biases[-1]))
        low, high = ((y + sign * (1.01 * reach + 1e-3)) / (1 - gate) for sign in (-1, 1))

        def step(i: Array, x: Array) -> Array:
            def of_one(s: Scalar) -> Scalar:
                return self._run(x.at[i].set(s), matrices)[0][i] - y[i]

            return x.at[i].set(increasing_root(of_one, low[i], high[i]))

        return jax.lax.fori_loop(0, len(y), step, jnp.zeros_like(y))

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        def residual(x: Array) -> Array:
            return self._run(x, self._matrices())[0] - y

        def solve_tangent(tangent: Callable[[Array], Array], right: Array) -> Array:
            return solve_triangular(jax.jacfwd(tangent)(jnp.zeros_like(right)), right, lower=True)

        start = jax.lax.stop_gradient(y)
        x = jax.lax.custom_root(residual, start, lambda _, __: self._solve(y), solve_tangent)
        return x, -self._forward_and_log_det(x, context)[1]
