"""Base distributions."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._core import Array, PRNGKeyArray, Scalar, Shape, register, requirement
from thalweg.distributions._distribution import AbstractDistribution

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


@register
class StandardNormal(AbstractDistribution):
    """N(0, I).

    Args:
        shape: of one point.
    """

    shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        x = normals(uniforms(key, math.prod(self.shape)), self.shape)
        return x, self._log_prob(x, context)

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        return -0.5 * square(x).sum() - 0.5 * math.log(2 * math.pi) * math.prod(self.shape)


@register
class StudentT(AbstractDistribution):
    r"""The multivariate Student-t with identity scale: $z / \sqrt{g / \nu}$, z ~ N(0, I), g ~ chi-squared(nu).

    Args:
        shape: of one point.
        degrees_of_freedom: nu > 0.

    Raises:
        ValueError: if nu is not positive.
    """

    shape: Shape = eqx.field(static=True)
    degrees_of_freedom: float = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None

    def __init__(self, shape: Shape, degrees_of_freedom: float = 30.0) -> None:
        if not degrees_of_freedom > 0:
            raise ValueError(requirement("degrees_of_freedom", "be positive", degrees_of_freedom))
        self.shape, self.degrees_of_freedom = shape, degrees_of_freedom

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        half, d = self.degrees_of_freedom / 2, math.prod(self.shape)
        if half == int(half):
            # a sum of exponentials: no rejection loop, which compiles and runs slower
            u = uniforms(key, d + int(half))
            normal, chi_squared = normals(u[:d], self.shape), -2 * jnp.log(u[d:]).sum()
        else:
            normal_key, chi = jax.random.split(key)
            normal = normals(uniforms(normal_key, d), self.shape)
            chi_squared = 2 * jax.random.gamma(chi, half)
        x = normal * jnp.sqrt(self.degrees_of_freedom / chi_squared)
        return x, self._log_prob(x, context)

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        nu, d = self.degrees_of_freedom, math.prod(self.shape)
        constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - 0.5 * d * math.log(nu * math.pi)
        return constant - 0.5 * (nu + d) * jnp.log1p(square(x).sum() / nu)
