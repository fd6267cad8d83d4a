"""Base distributions."""

import abc
import functools
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, PRNGKeyArray, Scalar, Shape, check_sizes, register, requirement
from thalweg.distributions._distribution import AbstractDistribution

_LEAST_DEGREES_OF_FREEDOM = 0.5
SQUARE_LIMIT = 1e17
"""Arguments are clipped here before they are squared: a sum of 10,000 such squares is finite in float32."""


def square(x: Array) -> Array:
    """Squares that can be summed: finite in float32."""
    return jnp.clip(x, -SQUARE_LIMIT, SQUARE_LIMIT) ** 2


def uniforms(key: PRNGKeyArray, n: int) -> Array:
    """N numbers in (0, 1), all from one call: each further one costs XLA 0.1 to 0.4 s of compiling.

    A multiple of 8 is drawn, since a batch of odd lengths takes it 5x longer.
    """
    u = jax.random.uniform(key, (-(-n // 8) * 8,))[:n]
    return jnp.maximum(u, jnp.finfo(u.dtype).eps / 2)


def normals(u: Array, shape: Shape) -> Array:
    """Of numbers in (0, 1), by the quantile function."""
    return math.sqrt(2) * jax.lax.erf_inv(2 * u - 1).reshape(shape)


class AbstractBase(AbstractDistribution):
    """One whose draws are made of so many numbers in (0, 1): implement `from_uniforms` and `_log_prob`.

    Who needs more random numbers beside a draw's draws all of them at once.
    """

    context_shape: ClassVar[Shape | None] = None

    @property
    @abc.abstractmethod
    def n_uniforms(self) -> int:
        """How many numbers in (0, 1) a draw is made of."""

    @abc.abstractmethod
    def from_uniforms(self, u: Array) -> Array:
        """The draw that `n_uniforms` of them make."""

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        x = self.from_uniforms(uniforms(key, self.n_uniforms))
        return x, self._log_prob(x, context)


@register
class StandardNormal(AbstractBase):
    """N(0, I).

    Args:
        shape: of one point.

    Raises:
        ValueError: if the shape is no tuple of sizes.
    """

    shape: Shape = eqx.field(static=True)

    def __init__(self, shape: Any) -> None:
        self.shape = check_sizes("shape", shape)

    @property
    def n_uniforms(self) -> int:
        """One a coordinate."""
        return math.prod(self.shape)

    def from_uniforms(self, u: Array) -> Array:
        """Their quantiles."""
        return normals(u, self.shape)

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        return -0.5 * square(x).sum() - 0.5 * math.log(2 * math.pi) * math.prod(self.shape)


_REACH, _DEGREES, _EXACT = 6.5, range(6, 41, 2), 1e-9
"""Of the polynomials below: how far out, in sd; their degrees; the error that is small enough."""


@functools.lru_cache(maxsize=256)
def _log_chi_squared_polynomial(nu: float) -> tuple[float, ...]:
    """Chebyshev coefficients, on [-6.5, 6.5], of log chi-squared / nu at the order that a normal's quantile has.

    It is smooth: from nu = 30 on degree 10 is exact to 1e-9, at nu = 2 degree 40.
    """
    from scipy.special import gammainccinv, gammaincinv, ndtr  # 0.2 s, which `import thalweg` shall not cost

    nodes = np.cos(np.pi * (np.arange(201) + 0.5) / 201)
    below, above = (2 * f(nu / 2, ndtr(s * _REACH * nodes)) for f, s in ((gammaincinv, 1), (gammainccinv, -1)))
    exact = np.log(np.where(nodes < 0, below, above) / nu)
    for degree in _DEGREES:
        found = np.polynomial.chebyshev.chebfit(nodes, exact, degree)
        if np.abs(np.polynomial.chebyshev.chebval(nodes, found) - exact).max() < _EXACT:
            break
    return tuple(found.tolist())


def _chebyshev(coefficients: tuple[float, ...], x: Array) -> Array:
    """Clenshaw's recurrence."""
    above, top = jnp.zeros_like(x), jnp.zeros_like(x)
    for c in coefficients[:0:-1]:
        above, top = 2 * x * above - top + c, above
    return x * above - top + coefficients[0]


@register
class StudentT(AbstractBase):
    r"""The multivariate Student-t with identity scale: $z / \sqrt{g / \nu}$, z ~ N(0, I), g ~ chi-squared(nu).

    g is a smooth function of one more normal, its quantile function's: no rejection loop, which compiles and runs
    slower.

    Args:
        shape: of one point.
        degrees_of_freedom: nu, at least 0.5; finite.

    Raises:
        ValueError: if nu is no such number, or the shape no tuple of sizes.
    """

    shape: Shape = eqx.field(static=True)
    degrees_of_freedom: float = eqx.field(static=True)

    def __init__(self, shape: Any, degrees_of_freedom: Any = 30.0) -> None:
        is_number = isinstance(degrees_of_freedom, int | float | np.number)
        if not is_number or not _LEAST_DEGREES_OF_FREEDOM <= degrees_of_freedom < math.inf:
            must = f"be a finite number of at least {_LEAST_DEGREES_OF_FREEDOM}"
            raise ValueError(requirement("degrees_of_freedom", must, repr(degrees_of_freedom)))
        self.shape, self.degrees_of_freedom = check_sizes("shape", shape), float(degrees_of_freedom)

    @property
    def n_uniforms(self) -> int:
        """One a coordinate, and one for g."""
        return math.prod(self.shape) + 1

    def from_uniforms(self, u: Array) -> Array:
        """The normal z is the quantiles of all but the last."""
        z = normals(u, u.shape)
        polynomial = _log_chi_squared_polynomial(float(self.degrees_of_freedom))
        log_ratio = _chebyshev(polynomial, jnp.clip(z[-1] / _REACH, -1, 1))
        return z[:-1].reshape(self.shape) * jnp.exp(-0.5 * log_ratio)

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        nu, d = self.degrees_of_freedom, math.prod(self.shape)
        constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - 0.5 * d * math.log(nu * math.pi)
        return constant - 0.5 * (nu + d) * jnp.log1p(square(x).sum() / nu)
