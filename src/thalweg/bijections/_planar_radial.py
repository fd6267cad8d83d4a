"""The flows of Rezende and Mohamed 2015, with the inverses that the paper leaves out."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import (
    Array,
    Cost,
    Scalar,
    Seed,
    Shape,
    check_positive_int,
    freeze,
    from_numpy,
    increasing_root,
    numpy_rng,
    register,
)
from thalweg.bijections._bijection import AbstractBijection

_FLATTEST = -0.999
"""Floor on w'u (planar) and beta / alpha (radial): keeps every slope at least 0.001."""


@register
class Planar(AbstractBijection):
    r"""$f(z) = z + \hat u \tanh(w^\top z + b)$, with $\log|1 + w^\top \hat u\,(1 - \tanh^2)|$.

    Invertibility needs $w^\top \hat u > -1$: $\hat u = u + (m(w^\top u) - w^\top u)\, w / \|w\|^2$ with
    $m(x) = -1 + \mathrm{softplus}(x + \ln(e - 1))$ floored at -0.999. The shift by ln(e - 1), which the paper does not
    have, makes u = 0 the identity. The inverse is one increasing scalar root, a + w'u tanh(a + b) = w'y.

    Source: Rezende and Mohamed 2015, equations 10 to 12 and appendix A.

    Args:
        size: d, the point's length.
        seed: an int or a JAX key, for the first direction w.
    """

    w: Array
    u: Array
    b: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "root"

    def __init__(self, size: int, *, seed: Seed = 0) -> None:
        size = check_positive_int("size", size)
        w = numpy_rng(seed).standard_normal(size) / math.sqrt(size)
        self.w = from_numpy(w)
        self.u = from_numpy(np.zeros(size))
        self.b = from_numpy(0.0)
        self.in_shape = (size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _constrained(self) -> tuple[Array, Scalar]:
        """(u hat, w'u hat)."""
        wu = self.w @ self.u
        m = jnp.maximum(-1 + jax.nn.softplus(wu + math.log(math.e - 1)), _FLATTEST)
        # the 1e-30 only matters at w = 0, where it makes 0 / 0 the limit 0
        u = self.u + (m - wu) * self.w / (self.w @ self.w + 1e-30)
        return u, jnp.maximum(self.w @ u, _FLATTEST)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        u, wu = self._constrained()
        h = jnp.tanh(self.w @ x + self.b)
        return x + u * h, jnp.log1p(wu * (1 - h**2))

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Scalar, Array]:
        y, log_det = self._forward_and_log_det(x, context)
        frozen = freeze(self)
        u, wu = frozen._constrained()
        h = jnp.tanh(frozen.w @ jax.lax.stop_gradient(x) + frozen.b)
        slope = 1 - h**2
        # J' = I + slope w u', inverted by Sherman and Morrison: no root is needed
        rest = score + frozen.w * (2 * wu * h * slope / (1 + wu * slope))
        return y, log_det, rest - frozen.w * (slope * (u @ rest) / (1 + wu * slope))

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        u, wu = self._constrained()
        wy = self.w @ y
        reach = jnp.abs(wu) * 1.01
        a = increasing_root(lambda a: a + wu * jnp.tanh(a + self.b) - wy, wy - reach, wy + reach)
        h = jnp.tanh(a + self.b)
        return y - u * h, -jnp.log1p(wu * (1 - h**2))


def _norm(x: Array) -> Scalar:
    """The Euclidean norm without overflow, with a zero gradient at 0."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    safe = jnp.where(largest > 0, largest, 1)
    squares = jnp.sum((x / safe) ** 2)
    return safe * jnp.where(largest > 0, jnp.sqrt(jnp.where(largest > 0, squares, 1)), 0)


@register
class Radial(AbstractBijection):
    r"""$f(z) = z + \beta\, (z - z_0) / (\alpha + r)$ with $r = \|z - z_0\|$.

    The log-determinant is $(d - 1) \log(1 + \beta h) + \log(1 + \beta \alpha h^2)$, $h = 1 / (\alpha + r)$.
    $\alpha = \mathrm{softplus}(a) + 0.001$; $\beta = \mathrm{softplus}(a + c) - \mathrm{softplus}(a)$, floored at
    -0.999 alpha, so that c = 0 is the identity. The inverse is closed form: with $\rho = \|y - z_0\|$,
    $r = \frac12 [\rho - \alpha - \beta + \sqrt{(\rho - \alpha - \beta)^2 + 4 \alpha \rho}]$.

    Source: Rezende and Mohamed 2015, equations 13 to 14 and appendix A.

    Args:
        size: d, the point's length.
        seed: an int or a JAX key, for the first centre z0.
    """

    center: Array
    a: Array
    c: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, size: int, *, seed: Seed = 0) -> None:
        size = check_positive_int("size", size)
        self.center = from_numpy(0.1 * numpy_rng(seed).standard_normal(size))
        self.a = from_numpy(0.0)
        self.c = from_numpy(0.0)
        self.in_shape = (size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _alpha_beta(self) -> tuple[Scalar, Scalar]:
        soft = jax.nn.softplus(self.a)
        alpha = soft + 1e-3
        return alpha, jnp.maximum(jax.nn.softplus(self.a + self.c) - soft, _FLATTEST * alpha)

    def _log_det(self, r: Scalar) -> Scalar:
        alpha, beta = self._alpha_beta()
        h = 1 / (alpha + r)
        return (self.in_shape[0] - 1) * jnp.log1p(beta * h) + jnp.log1p(beta * h * (alpha * h))

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        alpha, beta = self._alpha_beta()
        r = _norm(x - self.center)
        return x + beta / (alpha + r) * (x - self.center), self._log_det(r)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        alpha, beta = self._alpha_beta()
        rho = _norm(y - self.center)
        half = 0.5 * (rho - alpha - beta)
        below = jnp.sqrt(alpha) * jnp.sqrt(rho + jnp.finfo(y.dtype).tiny)
        root = _norm(jnp.stack([half, below]))
        # for half < 0 the sum cancels; the other form of the quadratic's root does not
        r = jnp.where(half > 0, half + root, alpha * rho / (root + jnp.abs(half)))
        return self.center + (y - self.center) / (1 + beta / (alpha + r)), -self._log_det(r)
