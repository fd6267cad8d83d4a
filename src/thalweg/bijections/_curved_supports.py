"""From R^m onto curved sets: angles, spheres, correlation and covariance matrices."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import (
    Array,
    Cost,
    Fixed,
    Scalar,
    Shape,
    check_positive_int,
    from_numpy,
    register,
    requirement,
    wrap_angle,
)
from thalweg.bijections._bijection import AbstractBijection
from thalweg.bijections._supports import LIMIT, AbstractOneFewer, clip, from_interval, to_interval

_LARGEST = 1e17
"""Numbers that will be squared and summed are clipped here, to stay finite in float32."""


def _log_sech2(x: Array) -> Array:
    """log(1 - tanh(x)^2), exact in both tails."""
    return math.log(4) - jax.nn.softplus(2 * x) - jax.nn.softplus(-2 * x)


def _to_angle(x: Array) -> tuple[Array, Array]:
    pi = jnp.full_like(x, math.pi)
    return to_interval(x, -pi, pi)


def _from_angle(y: Array) -> Array:
    pi = jnp.full_like(y, math.pi)
    return from_interval(y, -pi, pi)


@register
class Circular(AbstractBijection):
    r"""Elementwise $y = 2 \pi (\sigma(x) - 1/2)$, from R onto the angles $(-\pi, \pi)$.

    Args:
        shape: of a point.
    """

    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, shape: Shape = ()) -> None:
        self.in_shape = tuple(shape)

    @property
    def out_shape(self) -> Shape:
        """As `in_shape`."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        y, log_slope = _to_angle(x)
        return y, log_slope.sum()

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        x = _from_angle(y)
        return x, -_to_angle(x)[1].sum()


@register
class UnitVector(AbstractOneFewer):
    r"""From R^(k-1) onto the unit sphere in R^k (almost all of it), by cylindrical coordinates.

    $y_i = \rho_i t_i$ with $t_i = \tanh(x_i / \sqrt{n_i})$, $\rho_{i+1} = \rho_i \sqrt{1 - t_i^2}$ and
    $n_i = k - i$ for i = 1 ... k - 2; the last two coordinates are $\rho\,(\cos\phi, \sin\phi)$ with the angle
    $\phi = 2 \pi (\sigma(x_{k-1}) - 1/2)$. The log-determinant is with respect to surface measure:
    $\sum_i \frac{n_i}{2} \log(1 - t_i^2) - \frac12 \log n_i$, plus that of the angle. The uniform distribution pulls
    back to independent bell-shaped coordinates, $\mathrm{sech}^{n_i}(x_i / \sqrt{n_i})$ and a logistic one.

    Args:
        size: k >= 2.
    """

    def _dimensions(self, dtype: Any) -> Array:
        """n_i: the sphere's dimension at each step."""
        return jnp.asarray(np.arange(self.size - 1, 1, -1), dtype)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        n = self._dimensions(x.dtype)
        heights = clip(x[:-1] / jnp.sqrt(n), LIMIT / 2)
        log_squares = _log_sech2(heights)
        log_radius = 0.5 * jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(log_squares)])
        radius = jnp.exp(jnp.maximum(log_radius, -LIMIT))
        angle, log_slope = _to_angle(x[-1])
        ends = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        y = jnp.concatenate([radius[:-1] * jnp.tanh(heights), radius[-1] * ends])
        return y, (0.5 * n * log_squares - 0.5 * jnp.log(n)).sum() + log_slope

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        below = jnp.cumsum(jnp.square(y[::-1]))[::-1][1:-1]
        heights = _asinh_ratio(y[:-2], below)
        # arctan2 squares its arguments: near a pole they would underflow, and at it there is no derivative
        scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(y[-1]), jnp.abs(y[-2])))
        ends = jnp.where(scale > 0, y[-2:] / jnp.where(scale > 0, scale, 1), jnp.asarray([1, 0], y.dtype))
        angle = jnp.arctan2(ends[1], ends[0])
        x = jnp.append(heights * jnp.sqrt(self._dimensions(y.dtype)), _from_angle(angle))
        return x, -self._forward_and_log_det(x, None)[1]


@register
class Turned(AbstractBijection):
    r"""A map onto angles or unit vectors, then a turn: what it cuts open is cut elsewhere. No volume changes.

    Args:
        bijection: onto angles or unit vectors.
        turn: angles to add, of the shape of its points; or orthogonal matrices Q, one more axis, for Q y.
    """

    bijection: AbstractBijection
    turn: Fixed
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, bijection: AbstractBijection, turn: Any) -> None:
        shape = bijection.out_shape
        array = turn if isinstance(turn, jax.Array) else from_numpy(np.asarray(turn, jnp.result_type(float)))
        if array.shape not in (shape, (*shape, *shape[-1:])):
            raise ValueError(requirement("turn", f"have shape {shape}, or one axis more", array.shape))
        self.bijection, self.turn = bijection, Fixed(array)

    @property
    def in_shape(self) -> Shape:
        """As the bijection's."""
        return self.bijection.in_shape

    @property
    def out_shape(self) -> Shape:
        """As the bijection's."""
        return self.bijection.out_shape

    def _turned(self, y: Array, *, back: bool) -> Array:
        turn = self.turn.value.astype(y.dtype)
        if turn.ndim == y.ndim:
            return wrap_angle(y - turn if back else y + turn)
        return jnp.einsum("...ji,...j->...i" if back else "...ij,...j->...i", turn, y)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        y, log_det = self.bijection._forward_and_log_det(x, context)
        return self._turned(y, back=False), log_det

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        return self.bijection._inverse_and_log_det(self._turned(y, back=True), context)


def _asinh_ratio(y: Array, rest: Array) -> Array:
    """Atanh of y / sqrt(y^2 + rest), without the cancellation in 1 - tanh^2."""
    scale = jnp.sqrt(jnp.maximum(rest, math.exp(-LIMIT)))
    return jnp.arcsinh(clip(y / scale, _LARGEST))


@register
class CholeskyCorrelation(AbstractBijection):
    r"""From R^(k(k-1)/2) onto the Cholesky factors L of correlation matrices, by partial correlations $z = \tanh x$.

    Row by row, $L_{ij} = z_{ij} \sqrt{1 - \sum_{j' < j} L_{ij'}^2}$ for j < i, and $L_{ii}$ makes the row a unit
    vector. The log-determinant is with respect to the entries below the diagonal. Source: Lewandowski, Kurowicka
    and Joe 2009; Stan reference manual, "Cholesky factors of correlation matrices".

    Args:
        size: k >= 2.
    """

    size: int = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, size: int) -> None:
        self.size = check_positive_int("size", size, 2)

    @property
    def in_shape(self) -> Shape:
        """(k (k - 1) / 2,): the entries below the diagonal, row by row."""
        return (self.size * (self.size - 1) // 2,)

    @property
    def out_shape(self) -> Shape:
        """(k, k)."""
        return (self.size, self.size)

    def _logs(self, x: Array) -> tuple[Array, Array, Scalar]:
        """(x in its places, log of what is left of each row before each entry, log-determinant)."""
        k = self.size
        places = jnp.zeros((k, k), x.dtype).at[np.tril_indices(k, -1)].set(clip(x, LIMIT / 2))
        log_squares = jnp.where(np.tri(k, k=-1, dtype=bool), _log_sech2(places), 0)
        log_left = 0.5 * (jnp.cumsum(log_squares, axis=1) - log_squares)
        log_det = log_squares.sum() + jnp.where(np.tri(k, k=-1, dtype=bool), log_left, 0).sum()
        return places, log_left, log_det

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        places, log_left, log_det = self._logs(x)
        entries = jnp.tanh(places) + jnp.eye(self.size, dtype=x.dtype)
        return entries * jnp.exp(jnp.maximum(log_left, -LIMIT)), log_det

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        squares = jnp.tril(y) ** 2
        rest = jnp.cumsum(squares[:, ::-1], axis=1)[:, ::-1] - squares
        below = np.tril_indices(self.size, -1)
        x = _asinh_ratio(y[below], rest[below])
        return x, -self._logs(x)[2]


@register
class Covariance(AbstractBijection):
    r"""From R^(k(k+1)/2) onto the positive definite matrices: $\Sigma = L L'$, with $e^x$ on the diagonal of L.

    The log-determinant is with respect to the lower triangle: $k \log 2 + \sum_i (k - i + 2) \log L_{ii}$. Source: Stan
    reference manual, "Covariance matrices".

    Args:
        size: k >= 1.
    """

    size: int = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, size: int) -> None:
        self.size = check_positive_int("size", size)

    @property
    def in_shape(self) -> Shape:
        """(k (k + 1) / 2,): the entries of L, row by row."""
        return (self.size * (self.size + 1) // 2,)

    @property
    def out_shape(self) -> Shape:
        """(k, k)."""
        return (self.size, self.size)

    def _log_det(self, logs: Array) -> Scalar:
        k = self.size
        return k * math.log(2) + (jnp.asarray(np.arange(k + 1, 1, -1), logs.dtype) * clip(logs, LIMIT / 2)).sum()

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        k, diagonal = self.size, np.arange(self.size)
        places = jnp.zeros((k, k), x.dtype).at[np.tril_indices(k)].set(x)
        logs = places[diagonal, diagonal]
        factor = clip(places, _LARGEST).at[diagonal, diagonal].set(jnp.exp(clip(logs, LIMIT / 2)))
        return factor @ factor.T, self._log_det(logs)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        k, diagonal = self.size, np.arange(self.size)
        factor = jnp.linalg.cholesky(y)
        logs = jnp.log(factor[diagonal, diagonal])
        return factor.at[diagonal, diagonal].set(logs)[np.tril_indices(k)], -self._log_det(logs)
