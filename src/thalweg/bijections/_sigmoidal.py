"""A monotone network of one number: the transformer of neural autoregressive flows."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, increasing_root, register, requirement
from thalweg.bijections._transformers import AbstractTransformer

_LEAST_SLOPE = 1e-2
_LARGEST = 8.0
"""Parameters are softly clamped here: no slope is then below e^-16, on a plateau between two units."""
_FURTHEST = 100.0
"""Beyond it the map goes on as a straight line: the logarithms' differences would be rounding."""


@register
class SigmoidalTransformer(AbstractTransformer):
    r"""$y = \sigma^{-1}(\sum_k w_k\, \sigma(a_k x + b_k))$, w on the simplex, a > 0: one deep sigmoidal layer.

    Maps R onto R, for any a, with tails that are straight lines. The inverse is one increasing scalar root a
    coordinate, with an implicit derivative. Zero parameters make all units alike, x -> x; each reads its parameters
    with a gain of its own, so that training parts them.

    Source: Huang et al. 2018, section 3 (DSF).

    Args:
        units: how many sigmoids.

    Raises:
        ValueError: if there are fewer than 2.
    """

    units: int = eqx.field(static=True)

    def __init__(self, units: int = 8) -> None:
        if units < 2:
            raise ValueError(requirement("units", "be at least 2", units))
        self.units = units

    @property
    def n_params(self) -> int:
        """A weight, a slope and a shift a unit."""
        return 3 * self.units

    def _units(self, params: Array) -> tuple[Array, Array, Array]:
        """(log w, a, b), each (units, *point)."""
        k = self.units
        gain = jnp.asarray(np.linspace(-2, 2, k) + 0.5 / k, params.dtype).reshape(k, *[1] * (params.ndim - 1))
        shift = math.log(math.expm1(1 - _LEAST_SLOPE))
        weights, slopes, shifts = (_LARGEST * jnp.tanh(p * gain / _LARGEST) for p in jnp.split(params, 3))
        return jax.nn.log_softmax(weights, axis=0), _LEAST_SLOPE + jax.nn.softplus(slopes + shift), shifts

    def _curve(self, x: Array, units: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        """(y, log slope) without the straight lines; x of any shape, units (k, *shape)."""
        log_w, a, b = units
        pre = a * x[None] + b
        below, above = jax.nn.log_sigmoid(pre), jax.nn.log_sigmoid(-pre)
        log_p, log_rest = (jax.nn.logsumexp(log_w + part, axis=0) for part in (below, above))
        log_slope = jax.nn.logsumexp(log_w + below + above + jnp.log(a), axis=0) - log_p - log_rest
        return log_p - log_rest, log_slope

    def forward_and_log_slope(self, x: Array, params: Array) -> tuple[Array, Array]:
        """(y, log dy/dx)."""
        units = self._units(params)
        inside = jnp.clip(x, -_FURTHEST, _FURTHEST)
        y, log_slope = self._curve(inside, units)
        return y + (x - inside) * jnp.exp(log_slope), log_slope

    def inverse_and_log_slope(self, y: Array, params: Array) -> tuple[Array, Array]:
        """(x, log dx/dy)."""
        units = self._units(params)
        ends = jnp.full_like(y, _FURTHEST)
        (low, low_slope), (high, high_slope) = self._curve(-ends, units), self._curve(ends, units)
        inside = jnp.clip(y, low, high)

        def root(y: Array, units: tuple[Array, Array, Array]) -> Array:
            limit = jnp.full_like(y, _FURTHEST)
            return increasing_root(lambda x: self._curve(x, units)[0] - y, -limit, limit)

        flat = jax.tree.map(lambda a: a.reshape(self.units, -1), units)
        x = jax.vmap(root, in_axes=(0, 1))(inside.reshape(-1), flat).reshape(y.shape)
        _, log_slope = self._curve(x, units)
        beyond = (y - inside) * jnp.exp(-jnp.where(y > high, high_slope, low_slope))
        return x + beyond, -log_slope
