"""Scalar maps with parameters from outside: what couplings and autoregressive maps do to each coordinate."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._core import Array, Float, register, requirement

_LEAST_GATE = 1e-3


class AbstractTransformer(eqx.Module):
    """An increasing map of each coordinate, driven by `n_params` numbers a coordinate.

    Zero parameters are the identity. The parameter axis leads and coordinates trail, so that every operation runs
    along contiguous memory.

    Attributes:
        n_params: how many numbers drive one coordinate.
    """

    n_params: eqx.AbstractVar[int]

    @abc.abstractmethod
    def forward_and_log_slope(
        self, x: Float[Array, " d"], params: Float[Array, "n_params d"]
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """(y, log dy/dx), coordinate by coordinate."""

    @abc.abstractmethod
    def inverse_and_log_slope(
        self, y: Float[Array, " d"], params: Float[Array, "n_params d"]
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """(x, log dx/dy), coordinate by coordinate."""


@register
class AffineTransformer(AbstractTransformer):
    r"""$y = e^{s} x + t$ with the log-scale softly clamped, $s = c \tanh(p_0 / c)$, $t = p_1$.

    Source: Dinh et al. 2017; the clamp keeps deep stacks from overflowing.

    Args:
        max_log_scale: c.
    """

    max_log_scale: float = eqx.field(static=True, default=2.0)
    n_params: ClassVar[int] = 2

    def _log_scale(self, params: Array) -> Array:
        return self.max_log_scale * jnp.tanh(params[0] / self.max_log_scale)

    def forward_and_log_slope(self, x: Array, params: Array) -> tuple[Array, Array]:
        """(y, s)."""
        s = self._log_scale(params)
        return x * jnp.exp(s) + params[1], s

    def inverse_and_log_slope(self, y: Array, params: Array) -> tuple[Array, Array]:
        """(x, -s)."""
        s = self._log_scale(params)
        return (y - params[1]) * jnp.exp(-s), -s


@register
class AdditiveTransformer(AbstractTransformer):
    """y = x + t; volume-preserving (NICE). Source: Dinh et al. 2015."""

    n_params: ClassVar[int] = 1

    def forward_and_log_slope(self, x: Array, params: Array) -> tuple[Array, Array]:
        """(y, 0)."""
        return x + params[0], jnp.zeros_like(x)

    def inverse_and_log_slope(self, y: Array, params: Array) -> tuple[Array, Array]:
        """(x, 0)."""
        return y - params[0], jnp.zeros_like(y)


@register
class GatedTransformer(AbstractTransformer):
    r"""$y = g x + (1 - g)\, m$ with $g = \sigma(p_0 + c) / \sigma(c)$, $m = p_1$: the gate of an LSTM.

    The division by sigma(c), which the paper does not have, makes zero parameters the identity; g is floored at 0.001.

    Source: Kingma et al. 2016, equation 10; c is their forget-gate bias of 1 or 2.

    Args:
        gate_bias: c.
    """

    gate_bias: float = eqx.field(static=True, default=2.0)
    n_params: ClassVar[int] = 2

    def _gate(self, params: Array) -> Array:
        full = 1 + math.exp(-self.gate_bias)
        return _LEAST_GATE + (1 - _LEAST_GATE) * full * jax.nn.sigmoid(params[0] + self.gate_bias)

    def forward_and_log_slope(self, x: Array, params: Array) -> tuple[Array, Array]:
        """(y, log g)."""
        g = self._gate(params)
        return g * x + (1 - g) * params[1], jnp.log(g)

    def inverse_and_log_slope(self, y: Array, params: Array) -> tuple[Array, Array]:
        """(x, -log g)."""
        g = self._gate(params)
        return (y - (1 - g) * params[1]) / g, -jnp.log(g)


def _at(index: Array, knots: Array) -> Array:
    """knots[index[j], j] by a chain of selections: no gather, so it fuses and vectorises."""
    out = knots[0]
    for k in range(1, knots.shape[0]):
        out = jnp.where(index >= k, knots[k], out)
    return out


@register
class SplineTransformer(AbstractTransformer):
    r"""A monotone rational-quadratic spline on [-bound, bound], the identity outside.

    Widths and heights are a softmax with a floor, the slopes at the inner knots softplus with a floor and 1 at the
    ends, so the map is continuously differentiable everywhere. Arguments are clipped to the box *before* the spline is
    evaluated, never masked after, so that values and gradients are finite for every finite x.

    Source: Durkan et al. 2019, equations 4 to 8 (the inverse is the quadratic's stable root).

    Args:
        bins: number of bins.
        bound: half the width of the box.
        min_bin: floor on a bin's share of the box.
        min_slope: floor on a slope.

    Raises:
        ValueError: if the floors leave no room.
    """

    bins: int = eqx.field(static=True)
    bound: float = eqx.field(static=True)
    min_bin: float = eqx.field(static=True)
    min_slope: float = eqx.field(static=True)

    def __init__(self, bins: int = 8, bound: float = 5.0, min_bin: float = 1e-3, min_slope: float = 1e-3) -> None:
        if bins < 2 or not 0 < min_bin * bins < 1 or not 0 < min_slope < 1 or not bound > 0:
            got = f"bins {bins}, bound {bound}, min_bin {min_bin}, min_slope {min_slope}"
            must = "have at least 2 bins, a positive bound and floors that leave room (bins * min_bin < 1)"
            raise ValueError(requirement("SplineTransformer", must, got))
        self.bins, self.bound, self.min_bin, self.min_slope = bins, bound, min_bin, min_slope

    @property
    def n_params(self) -> int:
        """A width and a height a bin, a slope an inner knot."""
        return 3 * self.bins - 1

    def _knots(self, raw: Array) -> tuple[Array, Array]:
        """(bin sizes, left edges), each (bins, d); the left edges sum to exactly the box."""
        sizes = 2 * self.bound * (self.min_bin + (1 - self.min_bin * self.bins) * jax.nn.softmax(raw, axis=0))
        edges = [jnp.full_like(raw[0], -self.bound)]
        for k in range(self.bins - 1):
            edges.append(edges[-1] + sizes[k])
        return sizes, jnp.stack(edges)

    def _bin(self, point: Array, params: Array, *, by_height: bool) -> tuple[Array, ...]:
        """The point's bin: left edge, width, bottom, height, slopes at both ends."""
        k = self.bins
        widths, lefts = self._knots(params[:k])
        heights, bottoms = self._knots(params[k : 2 * k])
        # softplus(p + log(e^(1 - floor) - 1)) + floor is 1 at p = 0
        shift = jnp.log(jnp.expm1(jnp.asarray(1 - self.min_slope, params.dtype)))
        inner = self.min_slope + jax.nn.softplus(params[2 * k :] + shift)
        one = jnp.ones_like(inner[:1])
        edges = bottoms if by_height else lefts
        index = (jax.lax.stop_gradient(edges[1:]) <= point[None]).sum(axis=0)
        slopes = jnp.concatenate([one, inner, one])
        return (
            *(_at(index, a) for a in (lefts, widths, bottoms, heights)),
            _at(index, slopes[:-1]),
            _at(index, slopes[1:]),
        )

    def forward_and_log_slope(self, x: Array, params: Array) -> tuple[Array, Array]:
        """(y, log dy/dx)."""
        inside = jnp.abs(x) < self.bound
        clipped = jnp.clip(x, -self.bound, self.bound)
        left, width, bottom, height, d0, d1 = self._bin(clipped, params, by_height=False)
        t = jnp.clip((clipped - left) / width, 0, 1)
        u, s = t * (1 - t), height / width
        bend = d0 + d1 - 2 * s
        below = s + bend * u
        y = bottom + height * (s * t**2 + d0 * u) / below
        log_slope = jnp.log(s**2 * (d1 * t**2 + 2 * s * u + d0 * (1 - t) ** 2)) - 2 * jnp.log(below)
        return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)

    def inverse_and_log_slope(self, y: Array, params: Array) -> tuple[Array, Array]:
        """(x, log dx/dy)."""
        inside = jnp.abs(y) < self.bound
        clipped = jnp.clip(y, -self.bound, self.bound)
        left, width, bottom, height, d0, d1 = self._bin(clipped, params, by_height=True)
        v, s = jnp.clip((clipped - bottom) / height, 0, 1), height / width
        bend = d0 + d1 - 2 * s
        # a t^2 + b t + c = 0 with v the share of the bin's height; c <= 0 <= a + b + c
        a, b, c = s - d0 + v * bend, d0 - v * bend, -s * v
        root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, jnp.finfo(y.dtype).tiny))
        # of the two forms of the root, the one that does not cancel; b < 0 implies a > 0
        q = -0.5 * (jnp.abs(b) + root)
        t = jnp.clip(jnp.where(b < 0, -q / jnp.where(b < 0, a, 1), c / q), 0, 1)
        u = t * (1 - t)
        below = s + bend * u
        log_slope = jnp.log(s**2 * (d1 * t**2 + 2 * s * u + d0 * (1 - t) ** 2)) - 2 * jnp.log(below)
        return jnp.where(inside, left + t * width, y), jnp.where(inside, -log_slope, 0)
