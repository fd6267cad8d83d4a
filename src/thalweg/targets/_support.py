"""Where a parameter lives, and the way there from R^m."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Fixed, Shape, check_positive_int, register, requirement, wrap_angle
from thalweg.bijections import (
    AbstractBijection,
    Chain,
    CholeskyCorrelation,
    Circular,
    Covariance,
    GreaterThan,
    Interval,
    LessThan,
    LocationScale,
    Ordered,
    PositiveOrdered,
    Reshape,
    StickBreaking,
    Turned,
    UnitVector,
    Vmap,
    ZeroSum,
)

Kind = Literal[
    "real",
    "greater_than",
    "less_than",
    "interval",
    "circular",
    "ordered",
    "positive_ordered",
    "simplex",
    "cholesky_corr",
    "covariance",
    "unit_vector",
    "zero_sum",
]

Bound = Any
"""A number, an array, or a function of the dict of earlier parameters."""

_OF_SIZE_K: dict[str, type[AbstractBijection]] = {
    "ordered": Ordered,
    "positive_ordered": PositiveOrdered,
    "simplex": StickBreaking,
    "cholesky_corr": CholeskyCorrelation,
    "covariance": Covariance,
    "unit_vector": UnitVector,
    "zero_sum": ZeroSum,
}

_TOLERANCE = 1e-4
"""How far a sum, a norm or a symmetry may be off for a point to count as inside its support."""


@register
class BoundFunction(eqx.Module):
    """A bound that depends on what comes before.

    Attributes:
        function: of the dict of earlier parameters; and of the data too, where `needs_data`.
        needs_data: whether it takes the data.
    """

    function: Callable[..., Any] = eqx.field(static=True)
    needs_data: bool = eqx.field(static=True, default=False)

    def __call__(self, earlier: Mapping[str, Array], data: Any) -> Array:
        """The bound, given the earlier parameters."""
        value = self.function(dict(earlier), data) if self.needs_data else self.function(dict(earlier))
        return jnp.asarray(value, jnp.result_type(float))


@register
class Around(eqx.Module):
    """What numbers are drawn around, and in which units, given what comes before.

    Attributes:
        function: (earlier parameters, data) -> (location, scale), each of the parameter's shape, or the scale a lower
            triangular matrix for a vector.
        walk: whether the numbers are sums of all steps so far.
    """

    function: Callable[..., Any] = eqx.field(static=True)
    walk: bool = eqx.field(static=True, default=False)

    def bijection(self, earlier: Mapping[str, Array], data: Any, size: int) -> LocationScale:
        """From where everything is drawn around 0 in units of 1."""
        loc, scale = (jnp.asarray(x, jnp.result_type(float)) for x in self.function(dict(earlier), data))
        is_matrix = scale.ndim > loc.ndim
        return LocationScale(loc.ravel(), scale if is_matrix else scale.ravel(), size, walk=self.walk)


@register
class Support(eqx.Module):
    """The set a parameter lives in; built by `real`, `positive`, `interval`, `simplex` and so on.

    Attributes:
        kind: which set.
        batch: how many of them, as axes.
        k: the size of one vector or matrix, for the kinds that have one.
        low: the bound below: `Fixed` numbers or a function; None where there is none.
        high: the bound above.
        turn: where a circle or a sphere is cut open: see `Turned`; None for the other kinds.
        around: what its unconstrained numbers are measured from; None for 0, in units of 1.
    """

    kind: Kind = eqx.field(static=True)
    batch: Shape = eqx.field(static=True)
    k: int | None = eqx.field(static=True, default=None)
    low: Fixed | BoundFunction | None = None
    high: Fixed | BoundFunction | None = None
    turn: Fixed | None = None
    around: Around | None = None

    @property
    def shape(self) -> Shape:
        """Shape of the constrained parameter."""
        if self.k is None:
            return self.batch
        matrix = self.kind in ("cholesky_corr", "covariance")
        return (*self.batch, self.k, self.k) if matrix else (*self.batch, self.k)

    @property
    def size(self) -> int:
        """How many unconstrained numbers the parameter takes."""
        return math.prod(self.batch) * (1 if self.k is None else self._one().in_shape[0])

    def _one(self) -> AbstractBijection:
        return _OF_SIZE_K[self.kind](self.k)  # pyright: ignore[reportCallIssue]

    def _bounds(self, earlier: Mapping[str, Array] | None, data: Any) -> tuple[Any, Any]:
        def value(bound: Fixed | BoundFunction | None) -> Any:
            return bound(earlier or {}, data) if isinstance(bound, BoundFunction) else bound and bound.value

        return value(self.low), value(self.high)

    @property
    def has_ends(self) -> bool:
        """Whether rounding can carry a number to a fixed end other than 0, where nothing nearer can be told apart."""
        ends = self._fixed_ends()
        return any(end is not None and np.any(end != 0) for end in ends)

    def at_end(self, values: np.ndarray) -> Any:
        """Whether any number of each value, (n, *shape), is as near to a fixed end as its precision can hold; (n,)."""
        if self.kind == "circular" and self.turn is not None:
            values = wrap_angle(values - np.asarray(self.turn.value)).astype(values.dtype)
        near = np.zeros(values.shape, bool)
        for end in self._fixed_ends():
            if end is not None:
                end = end.astype(values.dtype)
                near |= np.abs(values - end) <= np.spacing(np.abs(end))
        return np.any(near.reshape(len(values), -1), axis=1)

    def _fixed_ends(self) -> list[np.ndarray | None]:
        if self.kind == "circular":
            return [np.asarray(-math.pi), np.asarray(math.pi)]
        return [np.asarray(b.value) if isinstance(b, Fixed) else None for b in (self.low, self.high)]

    def bijection(self, earlier: Mapping[str, Array] | None = None, data: Any = None) -> AbstractBijection:
        """The map from R^size (flat) onto the support.

        Args:
            earlier: the earlier parameters, for bounds that depend on them.
            data: the target's data, for bounds that depend on it.
        """
        onto = self._onto(earlier, data)
        return onto if self.around is None else Chain([self.around.bijection(earlier or {}, data, self.size), onto])

    def _onto(self, earlier: Mapping[str, Array] | None, data: Any) -> AbstractBijection:
        if self.k is not None:
            one, n = self._one(), math.prod(self.batch)
            many = Chain(
                [
                    Reshape((self.size,), (n, *one.in_shape)),
                    Vmap(one, n),
                    Reshape((n, *one.out_shape), self.shape),
                ]
            )
            return many if self.turn is None else Turned(many, self.turn.value)
        low, high = self._bounds(earlier, data)
        reshape = Reshape((self.size,), self.shape)
        match self.kind:
            case "greater_than":
                return Chain([reshape, GreaterThan(low, self.shape)])
            case "less_than":
                return Chain([reshape, LessThan(high, self.shape)])
            case "interval":
                return Chain([reshape, Interval(low, high, self.shape)])
            case "circular":
                circle = Chain([reshape, Circular(self.shape)])
                return circle if self.turn is None else Turned(circle, self.turn.value)
        return reshape

    def turned(self, turn: Any) -> "Support":
        """The same set, cut open elsewhere."""
        return dataclasses.replace(self, turn=_fixed(turn))

    def contains(self, value: Array, earlier: Mapping[str, Array] | None = None, data: Any = None) -> Array:
        """Whether one value is in the support (its boundary included, up to rounding); never for NaN."""
        low, high = self._bounds(earlier, data)
        inside = jnp.isfinite(value)
        if low is not None:
            inside &= value >= low.astype(value.dtype)
        if high is not None:
            inside &= value <= high.astype(value.dtype)
        return jnp.all(inside) & jnp.all(_shaped_right(self.kind, value))

    def __str__(self) -> str:
        """The call that makes it."""
        bounds = ["..." if isinstance(b, BoundFunction) else _words(b.value) for b in (self.low, self.high) if b]
        return f"{self.kind}({', '.join(bounds + [str(n) for n in (self.k, self.batch or None) if n is not None])})"


def _words(bound: Array) -> str:
    return f"{np.asarray(bound):.6g}" if bound.shape == () else f"bounds of shape {bound.shape}"


def _shaped_right(kind: Kind, x: Array) -> Array:
    """Whether `x` keeps its kind's rules beyond the bounds, in parts that must all hold."""
    transposed = jnp.swapaxes(x, -1, -2) if x.ndim > 1 else x
    scale = 1 + jnp.max(jnp.abs(x)) if x.size else 1
    match kind:
        case "circular":
            return jnp.abs(x) <= math.pi + _TOLERANCE
        case "ordered":
            return jnp.diff(x, axis=-1) >= 0
        case "positive_ordered":
            return jnp.append(jnp.diff(x, axis=-1).ravel() >= 0, x[..., 0].ravel() >= 0)
        case "simplex":
            return (x >= 0).all() & (jnp.abs(x.sum(-1) - 1) < _TOLERANCE)
        case "unit_vector":
            return jnp.abs((x**2).sum(-1) - 1) < _TOLERANCE
        case "zero_sum":
            return jnp.abs(x.sum(-1)) < _TOLERANCE * scale
        case "cholesky_corr":
            lower = jnp.abs(jnp.triu(x, 1)).max() == 0
            return lower & (jnp.abs((x**2).sum(-1) - 1) < _TOLERANCE) & (jnp.diagonal(x, axis1=-2, axis2=-1) > 0).all()
        case "covariance":
            symmetric = jnp.abs(x - transposed).max() < _TOLERANCE * scale
            return symmetric & (jnp.linalg.eigvalsh(x) > 0).all()
    return jnp.array(True)


def _axes(shape: int | Shape | None) -> Shape:
    if shape is None:
        return ()
    axes = shape if isinstance(shape, tuple | list) else (shape,)
    return tuple(check_positive_int("shape", n) for n in axes)


def _bound(name: str, value: Bound) -> Fixed | BoundFunction:
    if callable(value):
        return value if isinstance(value, BoundFunction) else BoundFunction(value)
    try:
        array = np.asarray(value, dtype=jnp.result_type(float))
    except (TypeError, ValueError) as error:
        raise ValueError(
            requirement(name, "be a number, an array or a function of the earlier parameters", repr(value))
        ) from error
    if not np.isfinite(array).all():
        raise ValueError(
            requirement(name, "be finite", value, "leave out a bound that is not there: use real or positive")
        )
    return _fixed(array)


def _fixed(array: Any) -> Fixed:
    with jax.ensure_compile_time_eval():  # numbers, even where a target is built inside a traced function
        return Fixed(jnp.asarray(np.asarray(array, jnp.result_type(float))))


def _bounded(kind: Kind, shape: int | Shape | None, low: Any = None, high: Any = None) -> Support:
    numbers = [b.value for b in (low, high) if isinstance(b, Fixed)]
    try:
        of_bounds = np.broadcast_shapes(*(b.shape for b in numbers))
        batch = of_bounds if shape is None else _axes(shape)
        fits = np.broadcast_shapes(of_bounds, batch) == batch
    except ValueError:
        of_bounds, batch, fits = " and ".join(str(b.shape) for b in numbers), _axes(shape), False
    if not fits:
        raise ValueError(requirement("shape", f"fit bounds of shape {of_bounds}", batch))
    if len(numbers) == 2 and not np.all(np.asarray(numbers[0]) < np.asarray(numbers[1])):
        raise ValueError(requirement("low", "be below `high`", f"{numbers[0]} and {numbers[1]}"))
    return Support(kind, batch, None, low, high)  # pyright: ignore[reportArgumentType]


def real(shape: int | Shape | None = None) -> Support:
    """All real numbers.

    Args:
        shape: None for one number, an int or a tuple for an array of them; the same in all that follow.
    """
    return Support("real", _axes(shape))


def positive(shape: int | Shape | None = None) -> Support:
    """Numbers above 0, by exp."""
    return greater_than(0.0, shape)


def greater_than(low: Bound, shape: int | Shape | None = None) -> Support:
    """Numbers above `low`: a number, an array, or a function of the dict of earlier parameters.

    Raises:
        ValueError: if a bound is not a finite number, or does not fit the shape.
    """
    return _bounded("greater_than", shape, low=_bound("low", low))


def less_than(high: Bound, shape: int | Shape | None = None) -> Support:
    """Numbers below `high`: a number, an array, or a function of the dict of earlier parameters.

    Raises:
        ValueError: if a bound is not a finite number, or does not fit the shape.
    """
    return _bounded("less_than", shape, high=_bound("high", high))


def interval(low: Bound, high: Bound, shape: int | Shape | None = None) -> Support:
    """Numbers between two bounds, each a number, an array, or a function of the dict of earlier parameters.

    Raises:
        ValueError: if a bound is not a finite number, low is not below high, or they do not fit the shape.
    """
    return _bounded("interval", shape, _bound("low", low), _bound("high", high))


def circular(shape: int | Shape | None = None) -> Support:
    r"""Angles in $(-\pi, \pi)$; on R the circle is cut open, by `infer` where the density is low."""
    batch = _axes(shape)
    return Support("circular", batch, turn=_fixed(np.zeros(batch)))


def ordered(k: int, shape: int | Shape | None = None) -> Support:
    """Increasing vectors of k numbers; `shape` is of a batch of them, and the parameter's shape is (*shape, k)."""
    return Support("ordered", _axes(shape), check_positive_int("k", k))


def positive_ordered(k: int, shape: int | Shape | None = None) -> Support:
    """Increasing vectors of k positive numbers."""
    return Support("positive_ordered", _axes(shape), check_positive_int("k", k))


def simplex(k: int, shape: int | Shape | None = None) -> Support:
    """Vectors of k >= 2 positive weights with sum 1; densities are with respect to the first k - 1."""
    return Support("simplex", _axes(shape), check_positive_int("k", k, 2))


def cholesky_corr(k: int, shape: int | Shape | None = None) -> Support:
    """Cholesky factors of k x k correlation matrices, k >= 2.

    Densities are with respect to the entries below the diagonal.
    """
    return Support("cholesky_corr", _axes(shape), check_positive_int("k", k, 2))


def covariance(k: int, shape: int | Shape | None = None) -> Support:
    """Positive definite k x k matrices; densities are with respect to the lower triangle."""
    return Support("covariance", _axes(shape), check_positive_int("k", k))


def unit_vector(k: int, shape: int | Shape | None = None) -> Support:
    """Unit vectors in R^k, k >= 2; densities are with respect to surface measure.

    On R^(k-1) the sphere is cut open, by `infer` where the density is low.
    """
    batch, k = _axes(shape), check_positive_int("k", k, 2)
    return Support("unit_vector", batch, k, turn=_fixed(np.broadcast_to(np.eye(k), (*batch, k, k))))


def zero_sum(k: int, shape: int | Shape | None = None) -> Support:
    """Vectors of k >= 2 numbers with sum 0; densities are with respect to the plane's own (Lebesgue) measure."""
    return Support("zero_sum", _axes(shape), check_positive_int("k", k, 2))
