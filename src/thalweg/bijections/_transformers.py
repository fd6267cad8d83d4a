"""Scalar maps with parameters from outside: what couplings and autoregressive maps do to each coordinate."""

import abc
import functools
import math
from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Float, register, requirement

_LEAST_GATE = 1e-3
_LARGEST = 30.0
"""Softmax's arguments are clipped here: it neither overflows nor vanishes, whatever a network gives."""


class AbstractTransformer(eqx.Module):
    """An increasing map of each coordinate, driven by `n_params` numbers a coordinate.

    Zero parameters are the identity. The parameter axis leads; coordinates and then, where there is one, a batch axis
    trail, so that every operation runs along contiguous memory.

    Attributes:
        n_params: how many numbers drive one coordinate.
    """

    n_params: eqx.AbstractVar[int]

    @abc.abstractmethod
    def forward_and_log_slope(
        self, x: Float[Array, "d ..."], params: Float[Array, "n_params d ..."]
    ) -> tuple[Float[Array, "d ..."], Float[Array, "d ..."]]:
        """(y, log dy/dx), coordinate by coordinate."""

    @abc.abstractmethod
    def inverse_and_log_slope(
        self, y: Float[Array, "d ..."], params: Float[Array, "n_params d ..."]
    ) -> tuple[Float[Array, "d ..."], Float[Array, "d ..."]]:
        """(x, log dx/dy), coordinate by coordinate."""


def sum_slopes(log_slope: Float[Array, "d ..."]) -> Float[Array, "..."]:
    """The log-determinant of a map of each coordinate by itself.

    By a product with ones: XLA's CPU compiler would compute the logarithms inside a sum, one at a time.
    """
    return jnp.tensordot(np.ones(log_slope.shape[0], log_slope.dtype), log_slope, 1, precision="highest")


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


@register
class SinhArcsinhTransformer(AbstractTransformer):
    r"""$y = \sinh(e^{s} (\operatorname{arcsinh} x + a))$: tails heavier (s > 0) or lighter, and skew.

    Both are softly clamped, $s = c \tanh(p_0 / c)$ and $a = c \tanh(p_1 / c)$. At s = log 2 a normal's tails become
    exponential ones, as the log of a hierarchy's scale has. Source: Jones and Pewsey 2009.

    Args:
        limit: c.
    """

    limit: float = eqx.field(static=True, default=1.0)
    n_params: ClassVar[int] = 2

    def _log_power_and_skew(self, params: Array) -> tuple[Array, Array]:
        s, a = self.limit * jnp.tanh(params / self.limit)
        return s, a

    def forward_and_log_slope(self, x: Array, params: Array) -> tuple[Array, Array]:
        """(y, log dy/dx)."""
        s, a = self._log_power_and_skew(params)
        angle = jnp.exp(s) * (jnp.arcsinh(x) + a)
        return jnp.sinh(angle), s + _log_cosh(angle) - _log_cosh(jnp.arcsinh(x))

    def inverse_and_log_slope(self, y: Array, params: Array) -> tuple[Array, Array]:
        """(x, log dx/dy)."""
        s, a = self._log_power_and_skew(params)
        angle = jnp.exp(-s) * jnp.arcsinh(y) - a
        return jnp.sinh(angle), _log_cosh(angle) - s - _log_cosh(jnp.arcsinh(y))


def _log_cosh(x: Array) -> Array:
    """Where cosh itself would overflow, too."""
    size = jnp.abs(x)
    return size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)


class _Bin(NamedTuple):
    """A point's bin of a spline; each (d, *batch)."""

    left: Array
    width: Array
    bottom: Array
    height: Array
    slope_left: Array
    slope_right: Array


# The next three are ordinary sums, quotients and softplus, whose derivatives are arranged for XLA's CPU compiler. It
# has a slow kernel for sums along a leading axis, so those are added up row by row; and it computes what goes into a
# broadcast anew for every row, unless a division comes last: so one does. A step of a spline flow takes half the time.


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum(x: Array, axis: int) -> Array:
    return functools.reduce(jnp.add, (r.squeeze(axis) for r in jax.lax.split(x, (1,) * x.shape[axis], axis)))


@_sum.defjvp
def _(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _sum(*primals, axis), tangents[0].sum(axis)


@jax.custom_jvp
def _ratio(x: Array, y: Array) -> Array:
    return x / y


@_ratio.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    ratio = _ratio(*primals)
    return ratio, tangents[0] / primals[1] - ratio * (tangents[1] / primals[1])


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    # log1p costs three times a log; the largest error, at x = -17, is 1e-7 against a floor of 0.001 on slopes
    return jnp.maximum(x, 0) + jnp.log(1 + jnp.exp(-jnp.abs(x)))


@_softplus.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _softplus(*primals), tangents[0] / (1 + jnp.exp(-primals[0]))


def _within(x: Array, low: float, high: float) -> Array:
    """Clipped, with the derivative 1 at both ends."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


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

    def _bin(self, point: Array, params: Array, *, by_height: bool) -> _Bin:
        """The point's bin.

        Sizes of bins enter by sums over those that lie wholly left of the point, or over the one that holds it: two
        masks, found without a derivative, so that the derivative of all six is a few products with masks, where one
        through an array of knots would go through it once a knot (a step of a spline flow takes half the time).
        """
        k, frozen = self.bins, jax.lax.stop_gradient
        raw, inner = jax.lax.split(params, (2 * k, k - 1))
        exp = jnp.exp(_within(raw, -_LARGEST, _LARGEST)).reshape(2, k, *point.shape)
        total = _sum(exp, 1)
        room, which = 1 - self.min_bin * k, int(by_height)
        sums = jnp.tensordot(np.tri(k - 1, dtype=exp.dtype), frozen(exp[which, :-1]), 1, precision="highest")
        floors = self.min_bin * np.arange(1, k, dtype=exp.dtype).reshape(-1, *[1] * point.ndim)
        share = frozen((point + self.bound) / (2 * self.bound))[None] - floors
        passed = (room * sums <= share * frozen(total[which])[None]).astype(exp.dtype)
        none = jnp.zeros_like(passed[:1])
        before = jnp.concatenate([passed, none])
        here = jnp.concatenate([none + 1, passed]) - before

        def length(mask: Array) -> Array:
            """Of the bins of a mask, as (widths, heights)."""
            share = _ratio(_sum(mask[None] * exp, 1), total)
            return 2 * self.bound * (room * share + self.min_bin * _sum(mask, 0)[None])

        # softplus(p + log(e^(1 - floor) - 1)) + floor is 1 at p = 0, which the slopes at the ends have
        shift = math.log(math.expm1(1 - self.min_slope))
        slopes = (self.min_slope + _softplus(_sum(mask * inner, 0) + shift) for mask in (here[1:], here[:-1]))
        starts, sizes = length(before) - self.bound, length(here)
        return _Bin(starts[0], sizes[0], starts[1], sizes[1], *slopes)

    def forward_and_log_slope(self, x: Array, params: Array) -> tuple[Array, Array]:
        """(y, log dy/dx)."""
        inside = jnp.abs(x) < self.bound
        point = jnp.where(inside, x, 0)
        left, width, bottom, height, d0, d1 = self._bin(point, params, by_height=False)
        t = _within((point - left) / width, 0.0, 1.0)
        u, s = t * (1 - t), height / width
        bend = d0 + d1 - 2 * s
        below = s + bend * u
        y = bottom + height * (s * t**2 + d0 * u) / below
        log_slope = jnp.log((s / below) ** 2 * (d1 * t**2 + 2 * s * u + d0 * (1 - t) ** 2))
        return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)

    def inverse_and_log_slope(self, y: Array, params: Array) -> tuple[Array, Array]:
        """(x, log dx/dy)."""
        inside = jnp.abs(y) < self.bound
        point = jnp.where(inside, y, 0)
        left, width, bottom, height, d0, d1 = self._bin(point, params, by_height=True)
        v, s = _within((point - bottom) / height, 0.0, 1.0), height / width
        bend = d0 + d1 - 2 * s
        # a t^2 + b t + c = 0 with v the share of the bin's height; c <= 0 <= a + b + c
        a, b, c = s - d0 + v * bend, d0 - v * bend, -s * v
        root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, jnp.finfo(y.dtype).tiny))
        # of the two forms of the root, the one that does not cancel; b < 0 implies a > 0
        q = -0.5 * (jnp.abs(b) + root)
        t = _within(jnp.where(b < 0, -q / jnp.where(b < 0, a, 1), c / q), 0.0, 1.0)
        u = t * (1 - t)
        below = s + bend * u
        log_slope = jnp.log((s / below) ** 2 * (d1 * t**2 + 2 * s * u + d0 * (1 - t) ** 2))
        return jnp.where(inside, left + t * width, y), jnp.where(inside, -log_slope, 0)
