"""Base distributions with numbers of their own: trainable, or not, as their owner chooses."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Fixed, PRNGKeyArray, Scalar, Shape, from_numpy, register, requirement
from thalweg.distributions._base import SQUARE_LIMIT, normals, square, uniforms
from thalweg.distributions._distribution import AbstractDistribution

_LOG_LIMIT = 60.0
"""Log-scales are clipped here, so that exp neither overflows nor underflows in float32."""


def _leaf(numbers: Any, *, trainable: bool) -> Array | Fixed:
    array = from_numpy(np.asarray(numbers, float))
    return array if trainable else Fixed(array)


def _value(leaf: Array | Fixed) -> Array:
    return leaf.value if isinstance(leaf, Fixed) else leaf


def _log_scale(leaf: Array | Fixed) -> Array:
    return jnp.clip(_value(leaf), -_LOG_LIMIT, _LOG_LIMIT)


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(requirement(name, "be an array of numbers", repr(value))) from error
    if not np.isfinite(array).all():
        raise ValueError(requirement(name, "be finite", value))
    return array


def _log_of(name: str, value: Any, shape: Shape) -> np.ndarray:
    """The logs of scales that a clipped log can hold."""
    array = _numbers(name, value)
    if array.shape != shape or not (array > 0).all():
        got = array.shape if array.shape != shape else f"{array.min():.6g} in it"
        raise ValueError(requirement(name, f"be positive, of shape {shape}", got))
    logs = np.asarray(np.log(array))
    if (np.abs(logs) > _LOG_LIMIT).any():
        low, high = math.exp(-_LOG_LIMIT), math.exp(_LOG_LIMIT)
        got = f"{array.ravel()[np.argmax(np.abs(logs))]:.6g} in it"
        raise ValueError(requirement(name, f"lie between {low:.2g} and {high:.2g}", got, "choose other units"))
    return logs


@register
class Normal(AbstractDistribution):
    r"""Independent normals: $N(\mu_i, \sigma_i^2)$.

    Args:
        loc: the means, of the point's shape.
        scale: the standard deviations, of the same shape.
        trainable: whether they are fitted.

    Raises:
        ValueError: if the shapes differ, or a scale is not positive, or beyond exp(60) or exp(-60).
    """

    loc: Array | Fixed
    log_scale: Array | Fixed
    shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None

    def __init__(self, loc: Any, scale: Any, *, trainable: bool = True) -> None:
        loc = _numbers("loc", loc)
        self.shape = loc.shape
        self.loc = _leaf(loc, trainable=trainable)
        self.log_scale = _leaf(_log_of("scale", scale, loc.shape), trainable=trainable)

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        z = normals(uniforms(key, math.prod(self.shape)), self.shape)
        return _value(self.loc) + jnp.exp(_log_scale(self.log_scale)) * z, self._log_prob_of_standard(z)

    def _log_prob_of_standard(self, z: Array) -> Scalar:
        constant = 0.5 * math.log(2 * math.pi) * math.prod(self.shape)
        return -0.5 * square(z).sum() - _log_scale(self.log_scale).sum() - constant

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        return self._log_prob_of_standard((x - _value(self.loc)) * jnp.exp(-_log_scale(self.log_scale)))


@register
class LowRankNormal(AbstractDistribution):
    r"""$N(\mu, \mathrm{diag}(\sigma^2) + F F')$ with F of k columns: correlations at the price of O(d k), not O(d^2).

    Draws are $\mu + \sigma \epsilon + F \eta$. With $w = (x - \mu) / \sigma$, $G = F / \sigma$ and
    $b = (I + G'G)^{-1} G' w$ the quadratic form is $|w - G b|^2 + |b|^2$, a sum of squares where Woodbury's formula is
    a difference, and the determinant is that of $I + G'G$ times $\prod \sigma_i^2$.
    Source: Ong, Nott and Smith 2018; Miller, Foti and Adams 2017.

    Args:
        loc: mu, (d,).
        scale: sigma, (d,).
        factor: F, (d, k). Zeros stay zeros when trained: begin with small random numbers.
        trainable: whether they are fitted.

    Raises:
        ValueError: if the shapes do not fit, or a scale is not positive, or beyond exp(60) or exp(-60).
    """

    loc: Array | Fixed
    log_scale: Array | Fixed
    factor: Array | Fixed
    shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None

    def __init__(self, loc: Any, scale: Any, factor: Any, *, trainable: bool = True) -> None:
        loc, factor = _numbers("loc", loc), _numbers("factor", factor)
        if loc.ndim != 1:
            raise ValueError(requirement("loc", "be a vector", f"shape {loc.shape}"))
        self.shape = loc.shape
        if factor.ndim != 2 or factor.shape[0] != loc.size or not factor.shape[1]:
            raise ValueError(requirement("factor", f"have shape ({loc.size}, k), k >= 1", factor.shape))
        self.loc, self.factor = _leaf(loc, trainable=trainable), _leaf(factor, trainable=trainable)
        self.log_scale = _leaf(_log_of("scale", scale, loc.shape), trainable=trainable)

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        factor = _value(self.factor)
        d, k = factor.shape
        z = normals(uniforms(key, d + k), (d + k,))
        x = _value(self.loc) + jnp.exp(_log_scale(self.log_scale)) * z[:d] + factor @ z[d:]
        return x, self._log_prob(x, context)

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        log_scale = _log_scale(self.log_scale)
        whitened = jnp.clip((x - _value(self.loc)) * jnp.exp(-log_scale), -SQUARE_LIMIT, SQUARE_LIMIT)
        factor = _value(self.factor) * jnp.exp(-log_scale)[:, None]
        d, k = factor.shape
        root = jnp.linalg.cholesky(jnp.eye(k, dtype=factor.dtype) + factor.T @ factor)
        along = jax.scipy.linalg.cho_solve((root, True), factor.T @ whitened)
        squares = square(whitened - factor @ along).sum() + square(along).sum()
        return -0.5 * squares - log_scale.sum() - jnp.log(jnp.diagonal(root)).sum() - 0.5 * d * math.log(2 * math.pi)


@register
class TrainableStudentT(AbstractDistribution):
    r"""Independent Student-t's, each with its own trainable degrees of freedom $\nu_i$ in (1/2, 200).

    What is fitted is s, $\nu = 1/2 + 199.5\, \sigma(s)$: tails from heavier than Cauchy's to all but normal ones.
    Layers that are linear far out keep the tails of their base. Source: Alexanderson and Henter 2020; Laszkiewicz,
    Lederer and Fischer 2022.

    Args:
        shape: of one point.
        degrees_of_freedom: nu at the start, a number or one for each coordinate.

    Raises:
        ValueError: if nu is not between the limits.
    """

    logit: Array
    shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    _limits: ClassVar[tuple[float, float]] = (0.5, 200.0)

    def __init__(self, shape: Shape, degrees_of_freedom: Any = 30.0) -> None:
        self.shape, (low, high) = shape, self._limits
        nu = _numbers("degrees_of_freedom", degrees_of_freedom)
        if nu.shape not in ((), shape) or not ((low < nu) & (nu < high)).all():
            must = f"lie between {low:g} and {high:g}, one number or of shape {shape}"
            raise ValueError(requirement("degrees_of_freedom", must, degrees_of_freedom))
        share = (np.broadcast_to(nu, shape) - low) / (high - low)
        self.logit = from_numpy(np.log(share) - np.log1p(-share))

    @property
    def degrees_of_freedom(self) -> Array:
        """Nu, of the point's shape."""
        low, high = self._limits
        return low + (high - low) * jax.nn.sigmoid(self.logit)

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        normal_key, chi = jax.random.split(key)
        nu = self.degrees_of_freedom
        # in logs: a chi-squared of one degree of freedom underflows
        log_chi_squared = math.log(2) + jax.random.loggamma(chi, nu / 2, self.shape, dtype=nu.dtype)
        z = normals(uniforms(normal_key, math.prod(self.shape)), self.shape)
        x = z * jnp.exp(0.5 * (jnp.log(nu) - log_chi_squared))
        return x, self._log_prob(x, context)

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        nu = self.degrees_of_freedom
        constant = jax.lax.lgamma((nu + 1) / 2) - jax.lax.lgamma(nu / 2) - 0.5 * jnp.log(nu * math.pi)
        return (constant - 0.5 * (nu + 1) * jnp.log1p(square(x) / nu)).sum()


@register
class UniformBox(AbstractDistribution):
    """Uniform between `low` and `high`, coordinate by coordinate; density 0 outside.

    Args:
        low: of the point's shape.
        high: of the same shape, above `low`.

    Raises:
        ValueError: if the shapes differ, a bound is not finite, or low is not below high.
    """

    low: Fixed
    high: Fixed
    shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None

    def __init__(self, low: Any, high: Any) -> None:
        low, high = _numbers("low", low), _numbers("high", high)
        if low.shape != high.shape or not (low < high).all():
            raise ValueError(requirement("low", "be below `high`, of the same shape", f"{low} and {high}"))
        self.low, self.high, self.shape = Fixed(from_numpy(low)), Fixed(from_numpy(high)), low.shape

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        u = uniforms(key, math.prod(self.shape)).reshape(self.shape)
        x = self.low.value + (self.high.value - self.low.value) * u
        return x, -jnp.log(self.high.value - self.low.value).sum()

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        inside = ((x >= self.low.value) & (x <= self.high.value)).all()
        return jnp.where(inside, -jnp.log(self.high.value - self.low.value).sum(), -jnp.inf)
