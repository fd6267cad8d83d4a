"""Linear maps: permutation, LU-factored matrix, triangular matrix, elementwise scale."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from thalweg._core import Array, Cost, Fixed, Scalar, Seed, Shape, from_numpy, numpy_rng, register, requirement
from thalweg.bijections._bijection import AbstractBijection

_LOG_LIMIT = 60.0
"""Log-scales are clipped here, so that exp neither overflows nor underflows in float32."""


def _floats(x: Any) -> Array:
    return from_numpy(np.asarray(x, dtype=float))


def _exp(log_scale: Array) -> Array:
    return jnp.exp(jnp.clip(log_scale, -_LOG_LIMIT, _LOG_LIMIT))


def _sum_logs(log_scale: Array) -> Scalar:
    return jnp.clip(log_scale, -_LOG_LIMIT, _LOG_LIMIT).sum()


@register
class Affine(AbstractBijection):
    r"""Elementwise $y = \mu + e^{s} x$ with trainable mu and s.

    Args:
        loc: mu, of the point's shape.
        scale: e^s > 0, of the point's shape.

    Raises:
        ValueError: if the shapes differ or a scale is not positive.
    """

    loc: Array
    log_scale: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, loc: Any, scale: Any) -> None:
        self.loc = _floats(loc)
        self.in_shape = self.loc.shape
        if np.shape(scale) != self.loc.shape or not np.all(np.asarray(scale) > 0):
            raise ValueError(requirement("scale", f"be positive, of shape {self.loc.shape}", np.shape(scale)))
        self.log_scale = _floats(np.log(scale))

    @property
    def out_shape(self) -> Shape:
        """The shape of `loc`."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        return self.loc + _exp(self.log_scale) * x, _sum_logs(self.log_scale)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        return (y - self.loc) * _exp(-self.log_scale), -_sum_logs(self.log_scale)


@register
class TriangularAffine(AbstractBijection):
    r"""$y = \mu + L x$ with L lower triangular of positive diagonal: from N(0, I) to N(mu, L L').

    Args:
        loc: mu, (d,).
        scale_tril: L, (d, d).

    Raises:
        ValueError: if the shapes do not fit or the diagonal is not positive.
    """

    loc: Array
    strictly_lower: Array
    log_diagonal: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"
    takes_batches: ClassVar[bool] = True

    def __init__(self, loc: Any, scale_tril: Any) -> None:
        self.loc = _floats(loc)
        matrix = np.asarray(scale_tril)
        d = self.loc.shape[0]
        self.in_shape = (d,)
        if matrix.shape != (d, d) or not np.all(np.diagonal(matrix) > 0):
            raise ValueError(requirement("scale_tril", f"be ({d}, {d}) with a positive diagonal", matrix.shape))
        self.strictly_lower = _floats(np.tril(matrix, -1))
        self.log_diagonal = _floats(np.log(np.diagonal(matrix)))

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    @property
    def scale_tril(self) -> Array:
        """L."""
        return jnp.tril(self.strictly_lower, -1) + jnp.diag(_exp(self.log_diagonal))

    def _parts(self, point: Array) -> tuple[Array, Array, Array]:
        """(mu, L, log-determinant), mu and the log-determinant fit for the point's batch axis."""
        log_det = jnp.broadcast_to(_sum_logs(self.log_diagonal), point.shape[1:])
        return self.loc.reshape(-1, *[1] * (point.ndim - 1)), self.scale_tril, log_det

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        loc, scale_tril, log_det = self._parts(x)
        return loc + scale_tril @ x, log_det

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Array, Array]:
        y, log_det = self._forward_and_log_det(x, context)
        scale_tril = jax.lax.stop_gradient(self.scale_tril)
        return y, log_det, solve_triangular(scale_tril, score, trans=1, lower=True)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Array]:
        loc, scale_tril, log_det = self._parts(y)
        return solve_triangular(scale_tril, y - loc, lower=True), -log_det


@register
class FixedAffine(AbstractBijection):
    r"""$y = \mu + M x$ with a fixed matrix M: what layers before it learn is in its coordinates.

    Both directions, and the score, are one product with M or its inverse, which is kept.

    Args:
        loc: mu, (d,).
        matrix: M, (d, d).

    Raises:
        ValueError: if the shapes do not fit, or M has no inverse.
    """

    loc: Fixed
    matrix: Fixed
    inverse_matrix: Fixed
    log_volume: Fixed
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"
    takes_batches: ClassVar[bool] = True

    def __init__(self, loc: Any, matrix: Any) -> None:
        m, d = np.asarray(matrix, float), np.shape(loc)[0]
        self.in_shape = (d,)
        if m.shape != (d, d):
            raise ValueError(requirement("matrix", f"be ({d}, {d})", m.shape))
        sign, log_volume = np.linalg.slogdet(m)
        if not (sign and np.isfinite(log_volume)):
            raise ValueError(requirement("matrix", "have an inverse", "a singular one"))
        self.loc, self.matrix, self.inverse_matrix, self.log_volume = (
            Fixed(_floats(a)) for a in (loc, m, np.linalg.inv(m), log_volume)
        )

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _loc(self, point: Array) -> Array:
        return self.loc.value.reshape(-1, *[1] * (point.ndim - 1))

    def _log_det(self, point: Array) -> Array:
        return jnp.broadcast_to(self.log_volume.value, point.shape[1:])

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self._loc(x) + self.matrix.value @ x, self._log_det(x)

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Array, Array]:
        return *self._forward_and_log_det(x, context), self.inverse_matrix.value.T @ score

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self.inverse_matrix.value @ (y - self._loc(y)), -self._log_det(y)


@register
class LU(AbstractBijection):
    r"""$y = L U x + b$, L unit lower and U upper triangular with a positive diagonal; the identity at the start.

    Source: Kingma and Dhariwal 2018, section 3.2 (without the fixed permutation: chain one before it).

    Args:
        size: d.
    """

    matrix: Array
    log_diagonal: Array
    bias: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, size: int) -> None:
        self.matrix = _floats(np.zeros((size, size)))
        self.log_diagonal = _floats(np.zeros(size))
        self.bias = _floats(np.zeros(size))
        self.in_shape = (size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _factors(self) -> tuple[Array, Array]:
        lower = jnp.tril(self.matrix, -1) + jnp.eye(*self.in_shape, dtype=self.matrix.dtype)
        return lower, jnp.triu(self.matrix, 1) + jnp.diag(_exp(self.log_diagonal))

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        lower, upper = self._factors()
        return lower @ (upper @ x) + self.bias, _sum_logs(self.log_diagonal)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        lower, upper = self._factors()
        x = solve_triangular(lower, y - self.bias, lower=True, unit_diagonal=True)
        return solve_triangular(upper, x, lower=False), -_sum_logs(self.log_diagonal)


@register
class Permutation(AbstractBijection):
    """y[i] = x[permutation[i]]; log-determinant 0.

    Args:
        permutation: the numbers 0 ... d - 1 in some order.

    Raises:
        ValueError: if it is not a permutation.
    """

    permutation: Array
    back: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"
    takes_batches: ClassVar[bool] = True

    def __init__(self, permutation: Any) -> None:
        order = np.asarray(permutation)
        if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(order.size)):
            raise ValueError(requirement("permutation", "hold each of 0 ... d - 1 once", order.tolist()))
        self.permutation = from_numpy(order.astype(np.int32))
        self.back = from_numpy(np.argsort(order).astype(np.int32))
        self.in_shape = order.shape

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        return x[self.permutation], jnp.zeros(x.shape[1:], x.dtype)

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Array, Array]:
        return x[self.permutation], jnp.zeros(x.shape[1:], x.dtype), score[self.permutation]

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Array]:
        return y[self.back], jnp.zeros(y.shape[1:], y.dtype)


def random_permutation(size: int, seed: Seed = 0) -> Permutation:
    """A permutation drawn uniformly at random."""
    return Permutation(numpy_rng(seed).permutation(size))


def reverse(size: int) -> Permutation:
    """The permutation that reverses the order."""
    return Permutation(np.arange(size)[::-1])
