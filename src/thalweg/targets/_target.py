"""The contract that every inference needs: a log density on R^d, and the way back to the parameters."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import (
    Array,
    Float,
    PRNGKeyArray,
    Scalar,
    check_positive_int,
    check_shape,
    one_at_a_time,
    precision,
    requirement,
)
from thalweg.targets._data import Original, as_data, check_same_form, digest
from thalweg.targets._space import AbstractSpace
from thalweg.targets._turns import in_turns

_MOST_DOUBLED = 50_000_000
"""Numbers of data that are held in float64 beside float32."""


@dataclasses.dataclass(frozen=True)
class _InTurn:
    """A user's function that one thread runs at a time; equal where the function is."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        with one_at_a_time():
            return self.function(*arguments)


def _in_turn(function: Callable[..., Any] | None) -> Any:
    return function if function is None or isinstance(function, _InTurn) else _InTurn(function)


class Target(eqx.Module):
    r"""A log density over constrained parameters, seen from R^d.

    $\log p(u) = \log p(\theta(u), \mathrm{data}) + \log |\det d\theta/du|$. The data are leaves: a jitted function
    of a target does not compile again for other numbers of the same shapes. Built by `from_function`, `from_likelihood`
    and the adapters, which check what they are given.

    Attributes:
        space: the parameters and the map from R^d onto them.
        data: a pytree of arrays, or None.
        log_joint: (params, data) -> scalar, up to a constant. In a space that is not centred it gets a third argument,
            name -> the standard numbers of each parameter that is measured from what it is drawn around.
        log_density_in_space: (u, data) -> scalar, log-Jacobian included, where another language computes it on R^d;
            else None. It must be what `log_joint` and the space's map make together.
        log_prior: params -> scalar, where the target is split into prior and likelihood.
        log_likelihood: (params, data) -> (n,) array, or dict name -> array: one number for each observation.
        deterministic: (params, data) -> dict of derived quantities.
        predictive: (key, params, data) -> dict of replicated observations.
        observe: data -> dict of the observed arrays.
        observed_names: the names of the observed arrays.
        name: for reports.
        noncentred_space: the same parameters, those whose scale others decide measured from what they are drawn
            around, in units of that scale; None where there are none, or nothing is known of it.
        takes_turns: whether batches of points are evaluated one by one, as matrix factorisations want on a CPU.
        runs_alone: whether no two of its programs may run at once: it takes turns, or calls back into Python.
    """

    space: AbstractSpace
    data: Any
    log_joint: Callable[..., Any] = eqx.field(static=True)
    log_density_in_space: Callable[..., Any] | None = eqx.field(static=True)
    log_prior: Callable[..., Any] | None = eqx.field(static=True)
    log_likelihood: Callable[..., Any] | None = eqx.field(static=True)
    deterministic: Callable[..., Any] | None = eqx.field(static=True)
    predictive: Callable[..., Any] | None = eqx.field(static=True)
    draw_prior: Callable[..., Any] | None = eqx.field(static=True)
    simulate: Callable[..., Any] | None = eqx.field(static=True)
    observe: Callable[..., Any] | None = eqx.field(static=True)
    observed_names: tuple[str, ...] = eqx.field(static=True)
    name: str = eqx.field(static=True)
    noncentred_space: AbstractSpace | None
    takes_turns: bool = eqx.field(static=True)
    runs_alone: bool = eqx.field(static=True)
    _coords: tuple[tuple[str, tuple[Any, ...]], ...] = eqx.field(static=True)
    _dims: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)
    _original: Original = eqx.field(static=True)

    def __init__(
        self,
        space: AbstractSpace,
        log_joint: Callable[..., Any],
        data: Any = None,
        *,
        log_density_in_space: Callable[..., Any] | None = None,
        log_prior: Callable[..., Any] | None = None,
        log_likelihood: Callable[..., Any] | None = None,
        deterministic: Callable[..., Any] | None = None,
        predictive: Callable[..., Any] | None = None,
        draw_prior: Callable[..., Any] | None = None,
        simulate: Callable[..., Any] | None = None,
        observe: Callable[..., Any] | None = None,
        observed_names: tuple[str, ...] = (),
        name: str = "target",
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Any] | None = None,
        noncentred_space: AbstractSpace | None = None,
        takes_turns: bool = False,
        runs_alone: bool = False,
    ) -> None:
        self.takes_turns, self.runs_alone = takes_turns, runs_alone or takes_turns
        self.noncentred_space = noncentred_space
        self.space, self.log_joint, self.data = space, _in_turn(log_joint), as_data(data)
        self._original = Original(data, self.data)
        self.log_density_in_space = _in_turn(log_density_in_space)
        self.log_prior, self.log_likelihood = _in_turn(log_prior), _in_turn(log_likelihood)
        self.deterministic, self.predictive = _in_turn(deterministic), _in_turn(predictive)
        self.draw_prior, self.simulate = draw_prior, simulate
        self.observe, self.observed_names = observe, tuple(observed_names)
        self.name = name
        self._coords = tuple((k, tuple(v)) for k, v in (coords or {}).items())
        self._dims = tuple((k, tuple(v)) for k, v in (dims or {}).items())
        functions = (log_joint, log_density_in_space, log_prior, log_likelihood, deterministic, predictive)
        for function in (*functions, draw_prior, simulate, observe):
            _check_hashable(function)

    @property
    def size(self) -> int:
        """The dimension d of R^d."""
        return self.space.size

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in order."""
        return self.space.names

    @property
    def coords(self) -> dict[str, tuple[Any, ...]]:
        """Dimension name -> its labels."""
        return dict(self._coords)

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Parameter or observation name -> the names of its dimensions."""
        return dict(self._dims)

    @property
    def is_split(self) -> bool:
        """Whether prior and pointwise likelihood are told apart, as minibatches need."""
        return self.log_prior is not None and self.log_likelihood is not None

    def log_density(self, u: Float[Array | np.ndarray, "..."], data: Any = None, weight: Any = 1.0) -> Scalar:
        """Log p at one point of R^d, the log-Jacobian included; NaN stays NaN.

        Args:
            u: the point; batches go through `jax.vmap`.
            data: other data of the same form, or a batch of rows; None for the target's own.
            weight: factor of the log-likelihood, n / batch size for a batch of rows; needs a split target.

        Raises:
            ValueError: if the point's shape is wrong, or a weight is given to a target that is not split.
        """
        data, u = self.data if data is None else data, jnp.asarray(u)
        if not self.takes_turns:
            return self._log_density(u, data, weight)
        # the target's own arrays too: a closure over them does not pass through all loops
        arrays, others = eqx.partition((self, data, weight), eqx.is_array)

        def in_full(u: Array, arrays: Any) -> Scalar:
            target, data, weight = eqx.combine(arrays, others)
            return target._log_density(u, data, weight)

        return in_turns(in_full)(u, arrays)

    def _log_density(self, u: Array, data: Any, weight: Any) -> Scalar:
        if self.log_density_in_space is not None and isinstance(weight, int | float) and weight == 1:
            check_shape("u", u, (self.size,), "batches go through jax.vmap")
            own, log_det = self.space.to_own(u)
            return jnp.asarray(self.log_density_in_space(own, data)).astype(u.dtype) + log_det
        params, log_det = self.space.constrain(u, data)
        if self.log_prior is not None and self.log_likelihood is not None:
            likelihood = jax.tree.map(jnp.sum, self.log_likelihood(params, data))
            likelihood = sum(jax.tree.leaves(likelihood), start=jnp.zeros((), u.dtype))
            value = self.log_prior(params) + jnp.asarray(weight, u.dtype) * likelihood
        elif isinstance(weight, int | float) and weight == 1:
            around = {n: u[self.space.slices[n]] for n in self.space.noncentred}
            value = self.log_joint(params, data, around) if around else self.log_joint(params, data)
        else:
            remedy = "build the target with from_likelihood"
            raise ValueError(requirement("weight", "be 1 for a target that is not split", weight, remedy))
        return jnp.asarray(value).astype(u.dtype) + log_det

    def each(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A function of one point's quantities, for rows of them: by `jax.vmap`, or one by one if it takes turns.

        What else belongs to a target factorises the same matrices as its log density.
        """
        return functools.partial(jax.lax.map, function) if self.takes_turns else jax.vmap(function)

    def constrain(self, u: Float[Array, "..."]) -> tuple[dict[str, Array], Scalar]:
        """One point of R^d as (name -> array, log-determinant of the map)."""
        return self.space.constrain(u, self.data)

    def unconstrain(self, values: Mapping[str, Any]) -> Float[Array, "..."]:
        """The point of R^d whose parameters are `values`.

        Raises:
            ValueError: if a name is missing or unknown, or a shape is wrong.
        """
        return self.space.unconstrain(values, self.data)

    @property
    def n_rows(self) -> int:
        """How many observations the pointwise likelihood speaks of.

        Raises:
            ValueError: if the target is not split, or the likelihood's parts differ in length.
        """
        return self._n_rows(self.data)

    def _n_rows(self, data: Any) -> int:
        if not self.is_split or self.log_likelihood is None:
            raise ValueError(
                requirement(
                    "target",
                    "be split into prior and likelihood to have rows",
                    "one that is not",
                    "use from_likelihood",
                )
            )
        function, space = self.log_likelihood, self.space
        u = jax.ShapeDtypeStruct((self.size,), jnp.result_type(float))
        terms = jax.tree.leaves(jax.eval_shape(lambda u, data: function(space.constrain(u, data)[0], data), u, data))
        lengths = {t.shape[0] if t.shape else 0 for t in terms}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(requirement("log_likelihood", "return one number for each row", [t.shape for t in terms]))
        return lengths.pop()

    def rows(self, key: PRNGKeyArray, data: Any, batch_size: int) -> tuple[Any, Scalar]:
        """A random batch of rows and the weight that makes its log-likelihood unbiased.

        Args:
            key: a JAX key.
            data: of the form of the target's own; None for that.
            batch_size: rows to draw, with replacement; the number of rows or more gives all of them.

        Returns:
            The data with every leaf of n rows (first axis) cut to the batch, other leaves as they are; n / batch_size.

        Raises:
            ValueError: if the target is not split.
        """
        data = self.data if data is None else data
        batch_size = check_positive_int("batch_size", batch_size)
        n = self._n_rows(data)
        if batch_size >= n:
            return data, jnp.ones(())
        index = jax.random.randint(key, (batch_size,), 0, n)
        batch = jax.tree.map(lambda x: x[index] if x.ndim and x.shape[0] == n else x, data)
        return batch, jnp.asarray(n / batch_size, jnp.result_type(float))

    def observed(self) -> dict[str, Array]:
        """Name -> array of what was observed, as far as the target knows."""
        if self.observe is not None:
            return dict(self.observe(self.data))
        return {n: self.data[n] for n in self.observed_names}

    @property
    def digest(self) -> str:
        """A fingerprint of the data, in whatever precision they are held."""
        return digest(self._original.data)

    def replace_data(self, data: Any) -> "Target":
        """The same target with other data of the same form.

        Raises:
            ValueError: if the structure, a shape or a dtype differs; the leaf is named.
        """
        check_same_form(as_data(data), self.data)
        return self.changed(data=data)

    def in_default_precision(self) -> "Target":
        """The same target with its data, as they were first given, in what is now JAX's default precision."""
        return self.changed()

    @property
    def in_double(self) -> "Target":
        """The same target in float64, whatever is JAX's default; itself where its functions do not take that."""
        if self._original.in_double is None:
            self._original.in_double = self._doubled()
        return self._original.in_double

    def _doubled(self) -> "Target":
        if sum(x.size for x in jax.tree.leaves(self.data)) > _MOST_DOUBLED:
            return self
        with precision("float64"):
            wide = self.changed()
            try:
                jax.eval_shape(wide.log_density, jax.ShapeDtypeStruct((self.size,), jnp.float64))
            except Exception:
                # a loop that carries float32, say
                return self
        return wide

    def renamed(self, name: str) -> "Target":
        """The same target under another name."""
        return self.changed(name=name)

    def turned(self, turns: Mapping[str, Any]) -> "Target":
        """The same target with its angles and unit vectors cut elsewhere: `AbstractSpace.turned`."""
        return self.changed(space=self.space.turned(turns)) if turns else self

    @property
    def noncentred(self) -> "Target | None":
        """The same target on another R^d, that of its `noncentred_space`; None where it has none."""
        if self.noncentred_space is None:
            return None
        return self.changed(space=self.noncentred_space.turned(self.space.turns), noncentred_space=None)

    def changed(self, **changes: Any) -> "Target":
        """The same target but for some of the arguments that make one."""
        same: dict[str, Any] = {
            "space": self.space,
            "log_joint": self.log_joint,
            "data": self._original.data,
            "log_density_in_space": self.log_density_in_space,
            "log_prior": self.log_prior,
            "log_likelihood": self.log_likelihood,
            "deterministic": self.deterministic,
            "predictive": self.predictive,
            "draw_prior": self.draw_prior,
            "simulate": self.simulate,
            "observe": self.observe,
            "observed_names": self.observed_names,
            "name": self.name,
            "coords": self.coords,
            "dims": self.dims,
            "noncentred_space": self.noncentred_space,
            "takes_turns": self.takes_turns,
            "runs_alone": self.runs_alone,
        }
        return Target(**{**same, **changes})


def _check_hashable(function: Any) -> None:
    try:
        hash(function)
    except TypeError as error:
        # inside what was made of it
        own = getattr(function, "function", function)
        got = f"a {type(own).__name__}, which is not"
        remedy = "pass its arrays through `data`"
        raise ValueError(requirement("log_density", "be hashable, as functions are", got, remedy)) from error
