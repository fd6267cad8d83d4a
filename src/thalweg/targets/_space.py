"""All parameters of a target together: R^d on one side, a dict of constrained arrays on the other."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Fixed, Float, Scalar, Shape, check_shape, from_numpy, register, requirement
from thalweg.bijections import Circular, Turned
from thalweg.targets._support import Support


class AbstractSpace(eqx.Module):
    """The parameters of a target, by name and in order, and the map from R^d onto them."""

    names: eqx.AbstractVar[tuple[str, ...]]

    @property
    @abstractmethod
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of the constrained parameter."""

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Name -> how many unconstrained numbers the parameter takes."""

    @abstractmethod
    def constrain(self, u: Float[Array, "..."], data: Any = None) -> tuple[dict[str, Array], Scalar]:
        """One point of R^d as (name -> array, log-determinant of the map).

        Args:
            u: the point.
            data: the target's data, for maps that depend on it.

        Raises:
            ValueError: if the point's shape is not (d,).
        """

    @abstractmethod
    def complete(self, values: Mapping[str, Any], data: Any = None, argument: str = "values") -> Float[Array, "..."]:
        """As `unconstrain`, with parameters that are not among `values` at the unconstrained 0.

        Raises:
            ValueError: if a name is unknown or a shape is wrong.
        """

    @abstractmethod
    def inside(self, values: Mapping[str, Array], data: Any = None) -> dict[str, Array]:
        """Name -> whether one value is where its parameter can be."""

    @abstractmethod
    def where(self, name: str) -> str:
        """Where a parameter can be, in words."""

    @property
    def with_ends(self) -> tuple[str, ...]:
        """Names of parameters with an end that rounding can carry them to: what lies nearer is one value to a model."""
        return ()

    def at_end(self, name: str, values: np.ndarray) -> np.ndarray:
        """Whether each value of a parameter with ends, rows first, is as near to one as its precision can hold."""
        return np.zeros(len(values), bool)

    @property
    def many_to_one(self) -> tuple[str, ...]:
        """Names of parameters whose map from R^d forgets something: a density on R^d tells of none of theirs."""
        return ()

    @property
    def turns(self) -> dict[str, np.ndarray]:
        """Name -> where an angle or a unit vector is cut open, as `Turned` takes it; of those that are."""
        return {}

    def turned(self, turns: Mapping[str, Any]) -> "AbstractSpace":
        """The same parameters, those among `turns` cut open there.

        Raises:
            ValueError: if a name is not among `self.turns`.
        """
        if turns:
            raise ValueError(requirement("turns", "name angles or unit vectors", ", ".join(turns)))
        return self

    @property
    def noncentred(self) -> tuple[str, ...]:
        """Names of the parameters that are measured from what they are drawn around."""
        return ()

    def to_own(self, u: Array) -> tuple[Array, Scalar]:
        """Where another language computes the log density on R^d: (its point there, log-determinant)."""
        return u, jnp.zeros((), u.dtype)

    @property
    def size(self) -> int:
        """d: how many unconstrained numbers there are."""
        return sum(self.sizes.values())

    @property
    def slices(self) -> dict[str, slice]:
        """Name -> where its numbers are in R^d."""
        ends = np.cumsum(list(self.sizes.values()))
        return {n: slice(int(e) - size, int(e)) for (n, size), e in zip(self.sizes.items(), ends, strict=True)}

    def unconstrain(self, values: Mapping[str, Any], data: Any = None) -> Float[Array, "..."]:
        """The point of R^d whose parameters are `values`.

        Raises:
            ValueError: if a name is missing or unknown, or a shape is wrong.
        """
        self._check_names(values, "values")
        return self.complete(values, data)

    def describe(self, u: Float[Array, "..."], data: Any = None) -> str:
        """The point `u` in words, for messages: "mu=0, tau=1, theta=[0, 0, 0]"."""
        return describe(self.constrain(u, data)[0])

    def _check_names(self, values: Any, argument: str) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(requirement(argument, f"be a dict of {', '.join(self.names)}", type(values).__name__))
        missing = [n for n in self.names if n not in values]
        unknown = [n for n in values if n not in self.names]
        if missing or unknown:
            which = [f"none for {n!r}" for n in missing] + [f"an unknown {n!r}" for n in unknown]
            raise ValueError(requirement(argument, f"name exactly {', '.join(self.names)}", " and ".join(which)))

    def check(self, draws: Mapping[str, Any], data: Any = None, argument: str = "draws") -> None:
        """Raise unless `draws` are points of this space.

        Args:
            draws: name -> array of shape (*batch, *shape of the parameter), one batch for all.
            data: the target's data, for maps that depend on it.
            argument: what messages call them.

        Raises:
            ValueError: if a name is missing or unknown, a shape is wrong, or a value is outside its support.
        """
        self._check_names(draws, argument)
        arrays = {n: jnp.asarray(draws[n], jnp.result_type(float)) for n in self.names}
        first, shape = self.names[0], self.shapes[self.names[0]]
        batch = arrays[first].shape[: max(arrays[first].ndim - len(shape), 0)]
        for name, shape in self.shapes.items():
            if arrays[name].shape != (*batch, *shape):
                beside = f" beside {arrays[first].shape} for {first!r}" if name != first else ""
                got = f"{arrays[name].shape}{beside}"
                raise ValueError(
                    requirement(f"{argument}[{name!r}]", f"have shape (..., {', '.join(map(str, shape))})", got)
                )

        def inside(values: dict[str, Array]) -> dict[str, Array]:
            return self.inside(values, data)

        for _ in batch:
            inside = jax.vmap(inside)
        inside_where = {n: np.asarray(good) for n, good in inside(arrays).items()}
        for name, good in inside_where.items():
            if not good.all():
                at = tuple(np.argwhere(~good)[0])
                together = [n for n, others in inside_where.items() if not others[at]]
                values = {n: np.asarray(arrays[n])[at] for n in together}
                which, got = (
                    (f"{argument}[{name!r}]", values[name]) if together == [name] else (argument, describe(values))
                )
                raise ValueError(requirement(which, f"lie in {', '.join(map(self.where, together))}", got))


@register
class Space(AbstractSpace):
    """The parameters of a target: R^d on one side, a dict of constrained arrays on the other.

    Args:
        supports: name -> Support, in order; a bound may be a function of the parameters before it.

    Raises:
        ValueError: if it is not a dict, is empty, or holds something else.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    supports: tuple[Support, ...]

    def __init__(self, supports: Any) -> None:
        if not isinstance(supports, Mapping):
            raise ValueError(requirement("supports", "be a dict of parameter names and supports", repr(supports)))
        if not supports:
            raise ValueError(requirement("supports", "name at least one parameter", "an empty dict"))
        for name, support in supports.items():
            _check_entry(name, support)
        self.names = tuple(supports)
        self.supports = tuple(supports.values())

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of the constrained parameter."""
        return {n: s.shape for n, s in self._items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> how many unconstrained numbers the parameter takes."""
        return {n: s.size for n, s in self._items()}

    def _items(self) -> list[tuple[str, Support]]:
        return list(zip(self.names, self.supports, strict=True))

    @property
    def with_ends(self) -> tuple[str, ...]:
        """Those with a fixed bound other than 0."""
        return tuple(name for name, support in self._items() if support.has_ends)

    def at_end(self, name: str, values: np.ndarray) -> np.ndarray:
        """Whether each value, rows first, is within one rounding of a bound."""
        return dict(self._items())[name].at_end(values)

    @property
    def turns(self) -> dict[str, np.ndarray]:
        """Of circular parameters and unit vectors."""
        return {n: np.asarray(s.turn.value) for n, s in self._items() if s.turn is not None}

    @property
    def noncentred(self) -> tuple[str, ...]:
        """Those with something around."""
        return tuple(n for n, s in self._items() if s.around is not None)

    def turned(self, turns: Mapping[str, Any]) -> "Space":
        """The same parameters, those among `turns` cut open there."""
        super().turned({n: t for n, t in turns.items() if n not in self.turns})
        return Space({n: s.turned(turns[n]) if n in turns else s for n, s in self._items()})

    def constrain(self, u: Float[Array, "..."], data: Any = None) -> tuple[dict[str, Array], Scalar]:
        """One point of R^d as (name -> array, log-determinant of the map).

        Args:
            u: the point.
            data: the target's data, for bounds that depend on it.

        Raises:
            ValueError: if the point's shape is not (d,).
        """
        check_shape("u", u, (self.size,), "batches go through jax.vmap")
        values: dict[str, Array] = {}
        total = jnp.zeros((), u.dtype)
        for (name, support), part in zip(self._items(), self.slices.values(), strict=True):
            values[name], log_det = support.bijection(values, data).forward_and_log_det(u[part])
            total = total + log_det
        return values, total

    def complete(self, values: Mapping[str, Any], data: Any = None, argument: str = "values") -> Float[Array, "..."]:
        """As `unconstrain`, with parameters that are not among `values` at the unconstrained 0.

        Raises:
            ValueError: if a name is unknown or a shape is wrong.
        """
        self._check_names({**dict.fromkeys(self.names), **values}, argument)
        dtype = jnp.result_type(float)
        parts, earlier = [], {}
        for name, support in self._items():
            bijection = support.bijection(earlier, data)
            if name in values:
                earlier[name] = jnp.asarray(values[name], dtype)
                check_shape(f"{argument}[{name!r}]", earlier[name], support.shape)
                parts.append(bijection.inverse(earlier[name]))
            else:
                parts.append(jnp.zeros(support.size, dtype))
                earlier[name] = bijection.forward(parts[-1])
        return jnp.concatenate(parts)

    def inside(self, values: Mapping[str, Array], data: Any = None) -> dict[str, Array]:
        """Name -> whether one value is in its support."""
        return {n: s.contains(values[n], values, data) for n, s in self._items()}

    def where(self, name: str) -> str:
        """A parameter's support, in words."""
        return str(self.supports[self.names.index(name)])


class MappedSpace(AbstractSpace):
    """Parameters whose map from R^d another language makes: PyMC's transforms, or Stan's.

    Args:
        shapes: name -> shape, in order.
        sizes: name -> how many unconstrained numbers, in the same order.
        forward: (u, data) -> (name -> array, log-determinant).
        inverse: (name -> array, data) -> u; NaN where a value is outside its support.
        many_to_one: names of parameters whose map forgets something.
        circular: names of parameters whose unconstrained numbers are angles, of which `forward` and the other
            language's log density take one turn to be as good as another; here they are cut open.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    forward: Callable[..., Any] = eqx.field(static=True)
    inverse: Callable[..., Any] = eqx.field(static=True)
    _shapes: tuple[Shape, ...] = eqx.field(static=True)
    _sizes: tuple[int, ...] = eqx.field(static=True)
    _many_to_one: tuple[str, ...] = eqx.field(static=True)
    _turns: dict[str, Fixed]

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        sizes: Mapping[str, int],
        forward: Callable[..., Any],
        inverse: Callable[..., Any],
        many_to_one: tuple[str, ...] = (),
        circular: tuple[str, ...] = (),
    ) -> None:
        self._many_to_one = many_to_one
        self.names, self._shapes = tuple(shapes), tuple(shapes.values())
        self._sizes = tuple(sizes[n] for n in self.names)
        self.forward, self.inverse = forward, inverse
        self._turns = {n: Fixed(from_numpy(np.zeros(sizes[n], jnp.result_type(float)))) for n in circular}

    @property
    def turns(self) -> dict[str, np.ndarray]:
        """Of the circular parameters."""
        return {n: np.asarray(t.value).reshape(self.shapes[n]) for n, t in self._turns.items()}

    def turned(self, turns: Mapping[str, Any]) -> "MappedSpace":
        """The same parameters, those among `turns` cut open there."""
        super().turned({n: t for n, t in turns.items() if n not in self._turns})
        new = {n: Fixed(from_numpy(np.ravel(np.asarray(t, jnp.result_type(float))))) for n, t in turns.items()}
        return eqx.tree_at(lambda space: space._turns, self, {**self._turns, **new})

    def _circles(self) -> list[tuple[slice, Turned]]:
        circles = [(self.slices[n], t.value) for n, t in self._turns.items()]
        return [(where, Turned(Circular(turn.shape), turn)) for where, turn in circles]

    def to_own(self, u: Array) -> tuple[Array, Scalar]:
        """With its angles as angles."""
        total = jnp.zeros((), u.dtype)
        for where, circle in self._circles():
            angles, log_det = circle.forward_and_log_det(u[where])
            u, total = u.at[where].set(angles), total + log_det
        return u, total

    def _from_own(self, u: Array) -> Array:
        for where, circle in self._circles():
            u = u.at[where].set(circle.inverse(u[where]))
        return u

    @property
    def many_to_one(self) -> tuple[str, ...]:
        """As given."""
        return self._many_to_one

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of the constrained parameter."""
        return dict(zip(self.names, self._shapes, strict=True))

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> how many unconstrained numbers the parameter takes."""
        return dict(zip(self.names, self._sizes, strict=True))

    def constrain(self, u: Float[Array, "..."], data: Any = None) -> tuple[dict[str, Array], Scalar]:
        """One point of R^d as (name -> array, log-determinant of the map).

        Args:
            u: the point.
            data: the target's data.

        Raises:
            ValueError: if the point's shape is not (d,).
        """
        check_shape("u", u, (self.size,), "batches go through jax.vmap")
        own, log_det = self.to_own(u)
        params, its = self.forward(own, data)
        return params, its + log_det

    def complete(self, values: Mapping[str, Any], data: Any = None, argument: str = "values") -> Float[Array, "..."]:
        """As `unconstrain`, with parameters that are not among `values` at the unconstrained 0.

        Raises:
            ValueError: if a name is unknown or a shape is wrong.
        """
        self._check_names({**dict.fromkeys(self.names), **values}, argument)
        dtype = jnp.result_type(float)
        arrays = {n: jnp.asarray(v, dtype) for n, v in values.items()}
        for name, array in arrays.items():
            check_shape(f"{argument}[{name!r}]", array, self.shapes[name])
        missing = [n for n in self.names if n not in arrays]
        if missing:
            arrays = {**self.constrain(jnp.zeros(self.size, dtype), data)[0], **arrays}
        u = self._from_own(self.inverse(arrays, data))
        for name in missing:
            u = u.at[self.slices[name]].set(0)
        return u

    def inside(self, values: Mapping[str, Array], data: Any = None) -> dict[str, Array]:
        """Name -> whether one value has a place in R^d, at infinity where it is on its support's boundary."""
        known = jnp.logical_not(jnp.isnan(self.inverse(values, data)))
        return {n: jnp.all(known[s]) & jnp.all(jnp.isfinite(values[n])) for n, s in self.slices.items()}

    def where(self, name: str) -> str:
        """A parameter's support, in words."""
        return f"the support of {name} in the model"


def _check_entry(name: Any, support: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(requirement("supports", "have strings for names", repr(name)))
    if not isinstance(support, Support):
        is_maker = callable(support) and hasattr(support, "__name__")
        got = f"the function {support.__name__}" if is_maker else repr(support)
        remedy = (
            f"call it: {support.__name__}()" if is_maker else "use real(), positive(), interval(low, high) or the like"
        )
        raise ValueError(requirement(f"supports[{name!r}]", "be a Support", got, remedy))


def describe(values: Mapping[str, Any]) -> str:
    """Parameters in words: "mu=0, tau=1, theta=[0, 0, 0]"; long arrays are cut."""

    def words(x: Any) -> str:
        numbers = [f"{v:.4g}" for v in np.ravel(np.asarray(x))]
        cut = numbers if len(numbers) <= 8 else [*numbers[:7], "..."]
        return cut[0] if np.ndim(x) == 0 else f"[{', '.join(cut)}]"

    return ", ".join(f"{n}={words(x)}" for n, x in values.items())
