"""From R^m onto constrained sets: half lines, intervals, ordered vectors, simplices, and to given locations and scales.

Unconstrained numbers are clipped *before* any exponential, so that values, log-determinants and gradients are finite
for every finite input; inverses clip distances to the boundary from below. Bounds are `Fixed`: no optimiser moves them.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from thalweg._core import Array, Cost, Fixed, Scalar, Shape, check_positive_int, from_numpy, register, requirement
from thalweg.bijections._bijection import AbstractBijection

LIMIT = 80.0
"""Exponents are clipped here: exp of either sign is finite and not 0 in float32."""


def clip(x: Array, limit: float = LIMIT) -> Array:
    """X within [-limit, limit]."""
    return jnp.clip(x, -limit, limit)


def log_distance(distance: Array) -> Array:
    """The log of a distance to the boundary; finite at and beyond it."""
    return jnp.log(jnp.maximum(distance, math.exp(-LIMIT)))


def _spacing(x: Array) -> Array:
    """The distance from |x| to the next larger number: below it, a step away from x is lost to rounding."""
    size = jnp.abs(jax.lax.stop_gradient(x))
    return jnp.nextafter(size, jnp.full_like(size, jnp.inf)) - size


def _bound(name: str, value: Any, shape: Shape) -> Fixed:
    array = value if isinstance(value, jax.Array) else np.asarray(value, dtype=jnp.result_type(float))
    try:
        fits = np.broadcast_shapes(array.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(requirement(name, f"broadcast to shape {tuple(shape)}", array.shape))
    return Fixed(array if isinstance(array, jax.Array) else from_numpy(array))


@register
class LocationScale(AbstractBijection):
    r"""$y = \mu + \sigma x$ with given mu and sigma, of which there is nothing to train.

    Args:
        loc: mu; broadcasts to (size,).
        scale: sigma > 0, which broadcasts to (size,); or a lower triangular matrix, (size, size), of positive diagonal.
        size: of a point.
        walk: whether $y = \mu + \sum_{j \le i} \sigma_j x_j$ instead, for a scale that is no matrix.
    """

    loc: Fixed
    scale: Fixed
    in_shape: Shape = eqx.field(static=True)
    walk: bool = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, loc: Any, scale: Any, size: int, *, walk: bool = False) -> None:
        self.in_shape, self.walk = (size,), walk
        self.loc = _bound("loc", loc, (size,))
        self.scale = _bound("scale", scale, (size, size) if np.ndim(scale) > 1 else (size,))

    @property
    def out_shape(self) -> Shape:
        """As `in_shape`."""
        return self.in_shape

    def _parts(self, dtype: Any) -> tuple[Array, Array, Scalar]:
        loc, scale = self.loc.value.astype(dtype), self.scale.value.astype(dtype)
        each = jnp.diagonal(scale) if scale.ndim > 1 else jnp.broadcast_to(scale, self.in_shape)
        return loc, scale, jnp.log(each).sum()

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        loc, scale, log_det = self._parts(x.dtype)
        if scale.ndim > 1:
            return loc + jnp.tril(scale) @ x, log_det
        return loc + (jnp.cumsum(scale * x) if self.walk else scale * x), log_det

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        loc, scale, log_det = self._parts(y.dtype)
        y = y - loc
        if scale.ndim > 1:
            return solve_triangular(scale, y, lower=True), -log_det
        return (jnp.diff(y, prepend=0.0) if self.walk else y) / scale, -log_det


@register
class GreaterThan(AbstractBijection):
    r"""Elementwise $y = a + e^x$, from R onto $(a, \infty)$; log-determinant $\sum x$.

    Args:
        low: a; broadcasts to `shape`.
        shape: of a point.

    Raises:
        ValueError: if `low` does not broadcast to `shape`.
    """

    low: Fixed
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, low: Any = 0.0, shape: Shape = ()) -> None:
        self.in_shape = tuple(shape)
        self.low = _bound("low", low, self.in_shape)

    @property
    def out_shape(self) -> Shape:
        """As `in_shape`."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        low, x = self.low.value.astype(x.dtype), clip(x)
        return low + jnp.maximum(jnp.exp(x), _spacing(low)), x.sum()

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        x = log_distance(y - self.low.value.astype(y.dtype))
        return x, -clip(x).sum()


@register
class LessThan(AbstractBijection):
    r"""Elementwise $y = b - e^x$, from R onto $(-\infty, b)$; log-determinant $\sum x$.

    Args:
        high: b; broadcasts to `shape`.
        shape: of a point.

    Raises:
        ValueError: if `high` does not broadcast to `shape`.
    """

    high: Fixed
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, high: Any = 0.0, shape: Shape = ()) -> None:
        self.in_shape = tuple(shape)
        self.high = _bound("high", high, self.in_shape)

    @property
    def out_shape(self) -> Shape:
        """As `in_shape`."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        high, x = self.high.value.astype(x.dtype), clip(x)
        return high - jnp.maximum(jnp.exp(x), _spacing(high)), x.sum()

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        x = log_distance(self.high.value.astype(y.dtype) - y)
        return x, -clip(x).sum()


def to_interval(x: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """(y in (low, high), log dy/dx), elementwise; where low >= high, which holds nothing, -inf for the latter."""
    x, width = clip(x), high - low
    # measured from the nearer end, so that neither end is reached by rounding
    from_low = jnp.maximum(width * jax.nn.sigmoid(x), _spacing(low))
    from_high = jnp.maximum(width * jax.nn.sigmoid(-x), _spacing(high))
    log_slope = log_distance(width) - jax.nn.softplus(x) - jax.nn.softplus(-x)
    log_slope = jnp.where(width > 0, log_slope, -jnp.inf)
    return jnp.where(x <= 0, low + from_low, high - from_high), log_slope


def from_interval(y: Array, low: Array, high: Array) -> Array:
    """The inverse of `to_interval`."""
    return log_distance(y - low) - log_distance(high - y)


@register
class Interval(AbstractBijection):
    r"""Elementwise $y = a + (b - a)\,\sigma(x)$, from R onto (a, b), $\sigma$ the logistic function.

    The log-determinant is $\sum \log(b - a) + \log\sigma(x) + \log\sigma(-x)$.

    Args:
        low: a; broadcasts to `shape`.
        high: b > a; broadcasts to `shape`.
        shape: of a point.

    Raises:
        ValueError: if a bound does not broadcast to `shape`.
    """

    low: Fixed
    high: Fixed
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, low: Any = 0.0, high: Any = 1.0, shape: Shape = ()) -> None:
        self.in_shape = tuple(shape)
        self.low = _bound("low", low, self.in_shape)
        self.high = _bound("high", high, self.in_shape)

    @property
    def out_shape(self) -> Shape:
        """As `in_shape`."""
        return self.in_shape

    def _bounds(self, dtype: Any) -> tuple[Array, Array]:
        low, high = self.low.value.astype(dtype), self.high.value.astype(dtype)
        return jnp.broadcast_to(low, self.in_shape), jnp.broadcast_to(high, self.in_shape)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        y, log_slope = to_interval(x, *self._bounds(x.dtype))
        return y, log_slope.sum()

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        low, high = self._bounds(y.dtype)
        x = from_interval(y, low, high)
        return x, -to_interval(x, low, high)[1].sum()


def _increasing(first: Array, steps: Array) -> Array:
    """first, first + steps[0], ...; steps below rounding are lifted to it, so that the result increases strictly."""
    rough = jnp.abs(jnp.cumsum(jnp.concatenate([first, steps])))
    steps = jnp.maximum(steps, 2 * _spacing(jnp.maximum(rough[1:], rough[:-1])))
    return jnp.cumsum(jnp.concatenate([first, steps]))


@register
class Ordered(AbstractBijection):
    r"""$y_1 = x_1$, $y_i = y_{i-1} + e^{x_i}$: from R^k onto the increasing vectors; log-determinant $\sum_{i>1} x_i$.

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
        """(k,)."""
        return (self.size,)

    @property
    def out_shape(self) -> Shape:
        """(k,)."""
        return (self.size,)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        logs = clip(x[1:])
        return _increasing(x[:1], jnp.exp(logs)), logs.sum()

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        logs = log_distance(jnp.diff(y))
        return jnp.concatenate([y[:1], logs]), -clip(logs).sum()


@register
class PositiveOrdered(AbstractBijection):
    r"""$y_1 = e^{x_1}$, $y_i = y_{i-1} + e^{x_i}$: from R^k onto the increasing vectors with y_1 > 0.

    The log-determinant is $\sum x_i$.

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
        """(k,)."""
        return (self.size,)

    @property
    def out_shape(self) -> Shape:
        """(k,)."""
        return (self.size,)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        logs = clip(x)
        return _increasing(jnp.exp(logs[:1]), jnp.exp(logs[1:])), logs.sum()

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        x = log_distance(jnp.concatenate([y[:1], jnp.diff(y)]))
        return x, -clip(x).sum()


class AbstractOneFewer(AbstractBijection):
    """From R^(k-1) onto a set of vectors of k numbers, of which k - 1 are free.

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
        """(k - 1,)."""
        return (self.size - 1,)

    @property
    def out_shape(self) -> Shape:
        """(k,)."""
        return (self.size,)


@register
class StickBreaking(AbstractOneFewer):
    r"""From R^(k-1) onto the simplex of k weights: $y_i = r_i\, \sigma(x_i - \log(k - i))$, $r_i$ what is left.

    Zero goes to the uniform point. The log-determinant is with respect to the first k - 1 weights,
    $\sum_i \log r_i + \log \sigma(a_i) + \log \sigma(-a_i)$ with $a_i = x_i - \log(k - i)$. All products are taken as
    sums of logs, so that small weights keep their digits. Source: Stan reference manual, "Unit simplex".

    Args:
        size: k >= 2.
    """

    def _offsets(self, dtype: Any) -> Array:
        return jnp.asarray(np.log(np.arange(self.size - 1, 0, -1)), dtype)

    def _logs(self, x: Array) -> tuple[Array, Scalar]:
        a = clip(x - self._offsets(x.dtype))
        log_taken, log_kept = -jax.nn.softplus(-a), -jax.nn.softplus(a)
        log_left = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(log_kept)])
        log_det = (log_left[:-1] + log_taken + log_kept).sum()
        return log_left + jnp.concatenate([log_taken, jnp.zeros(1, x.dtype)]), log_det

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        log_weights, log_det = self._logs(x)
        return jnp.exp(jnp.maximum(log_weights, -LIMIT)), log_det

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        left = jnp.cumsum(y[::-1])[::-1]
        x = log_distance(y[:-1]) - log_distance(left[1:]) + self._offsets(y.dtype)
        return x, -self._logs(x)[1]


@register
class ZeroSum(AbstractOneFewer):
    r"""From R^(k-1) onto the vectors of k numbers with sum 0: $y = H' x$ with Helmert's orthonormal rows.

    $H_i = (1, \dots, 1, -i, 0, \dots) / \sqrt{i (i + 1)}$, i ones first. Lengths are kept, so the log-determinant with
    respect to the plane's own Lebesgue measure is 0, and x ~ N(0, I) is what PyMC, NumPyro and Stan call a zero-sum
    normal. Source: Stan reference manual, "Zero sum vector"; Egozcue et al. 2003.

    Args:
        size: k >= 2.
    """

    def _ones(self, dtype: Any) -> tuple[Array, Array]:
        """(i, 1 / sqrt(i (i + 1))): the number of ones in each row, and their height."""
        i = np.arange(1, self.size)
        return jnp.asarray(i, dtype), jnp.asarray(1 / np.sqrt(i * (i + 1.0)), dtype)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        i, height = self._ones(x.dtype)
        ones, zero = height * x, jnp.zeros(1, x.dtype)
        from_rows = jnp.cumsum(ones[::-1])[::-1]
        y = jnp.concatenate([from_rows, zero]) - jnp.concatenate([zero, i * ones])
        return y, jnp.zeros((), x.dtype)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        i, height = self._ones(y.dtype)
        return height * (jnp.cumsum(y[:-1]) - i * y[1:]), jnp.zeros((), y.dtype)
