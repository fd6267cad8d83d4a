"""Targets from PyMC models; the only file that knows PyMC and PyTensor."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from thalweg._core import Array, PRNGKeyArray, Scalar, Shape, import_guest, requirement, resolve_dtype
from thalweg.targets._check import check_gradient, raised
from thalweg.targets._data import as_data
from thalweg.targets._space import MappedSpace
from thalweg.targets._target import Target

_ONE_AT_A_TIME = threading.RLock()
_ZERO_SUM = "mean(value"
"""How PyMC's message begins where the sum of a ZeroSumNormal is not 0."""


def _guest(name: str) -> Any:
    return import_guest(name, "pymc")


def _load() -> None:
    """Import PyTensor's JAX part, which on import sets jax_enable_x64 to what its own floatX says.

    So floatX is, for that while, what JAX is set to in the whole process: what a new thread sees.
    """

    def load() -> None:
        with _guest("pytensor").config.change_flags(floatX=resolve_dtype()):
            _guest("pytensor.link.jax.dispatch")

    _guest("pymc")
    with concurrent.futures.ThreadPoolExecutor(1) as another:
        another.submit(load).result()


@contextlib.contextmanager
def _as_pytensor_expects() -> Iterator[None]:
    """PyTensor relies on JAX's default promotion rules, and asks for double precision by name.

    In single precision JAX gives it that instead, with a warning each time; the lock is for the list of warning
    filters, which all threads share.
    """
    promotion = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with _ONE_AT_A_TIME, warnings.catch_warnings(), promotion[0], promotion[1]:
        warnings.simplefilter("ignore")
        yield


class _Graph:
    """PyTensor expressions as a JAX function: made when first called, once in each precision.

    Args:
        inputs: its variables.
        outputs: its expressions.
        check_bounds: the model's: whether a bad parameter of a distribution makes its log density -inf.
    """

    def __init__(self, inputs: Sequence[Any], outputs: Sequence[Any], *, check_bounds: bool) -> None:
        self._inputs, self._outputs = list(inputs), list(outputs)
        self._rule = "local_check_parameter_to_ninf_switch" if check_bounds else "local_remove_check_parameter"
        self._made: dict[str, Callable[..., Any]] = {}

    def __call__(self, *arrays: Any) -> list[Array]:
        with _as_pytensor_expects():
            dtype = resolve_dtype()
            if dtype not in self._made:
                with jax.ensure_compile_time_eval():  # its constants are numbers, even where it is first traced
                    self._made[dtype] = self._make()
            return [jnp.asarray(x) for x in self._made[dtype](*arrays)]

    def _make(self) -> Callable[..., Any]:
        fgraph = _guest("pytensor.graph.fg").FunctionGraph(self._inputs, self._outputs, clone=True)
        for node in fgraph.toposort():
            # a sum of 0 is to hold to 1e-9, which single precision cannot; the way from R^d makes it 0 but for rounding
            if str(getattr(node.op, "msg", "")).startswith(_ZERO_SUM):
                fgraph.replace(node.outputs[0], node.inputs[0], reason="zero sum")
        _guest("pytensor.compile.mode").JAX.including(self._rule).optimizer.rewrite(fgraph)
        _mend_categorical()
        _add_missing()
        return _guest("pytensor.link.jax.dispatch").jax_funcify(fgraph)


@functools.cache
def _mend_categorical() -> None:
    """Draw categories by log p: PyTensor's sampler for JAX (2.38) takes the logit, log p / (1 - p), for it."""
    samplers, variables = _guest("pytensor.link.jax.dispatch.random"), _guest("pytensor.tensor.random.basic")

    @samplers.jax_sample_fn.register(variables.CategoricalRV)
    def _(op: Any, node: Any) -> Callable[..., Array]:
        return lambda key, size, dtype, p: jax.random.categorical(key, jnp.log(p), shape=size).astype(dtype)


@functools.cache
def _add_missing() -> None:
    """What PyTensor (2.38) leaves to TensorFlow Probability, or out: what censored normals and matrices ask for."""
    dispatch = _guest("pytensor.link.jax.dispatch.basic")
    scalar, linalg = _guest("pytensor.scalar.math"), _guest("pymc.distributions.multivariate")

    @dispatch.jax_funcify.register(scalar.Erfcx)
    def _(op: Any, **_: Any) -> Callable[..., Array]:
        # exp(x^2) erfc(x), by the logarithm of the normal's tail: neither overflows alone
        return lambda x: 2 * jnp.exp(x**2 + jax.scipy.special.log_ndtr(-math.sqrt(2) * x))

    @dispatch.jax_funcify.register(linalg.PosDefMatrix)
    def _(op: Any, **_: Any) -> Callable[..., Array]:
        return lambda x: jnp.all(jnp.isfinite(jnp.linalg.cholesky(x)))


def _shared(outputs: Sequence[Any]) -> list[Any]:
    """The shared variables in expressions: data, and the states of random generators."""
    kind = _guest("pytensor.compile.sharedvalue").SharedVariable
    inputs = _guest("pytensor.graph.traversal").graph_inputs(outputs)
    return [v for v in dict.fromkeys(inputs) if isinstance(v, kind)]


def _is_generator(variable: Any) -> bool:
    return isinstance(variable.type, _guest("pytensor.tensor.random.type").RandomType)


def _replaced(outputs: Sequence[Any], replace: Mapping[Any, Any]) -> list[Any]:
    return list(_guest("pytensor.graph.replace").clone_replace(list(outputs), dict(replace), rebuild_strict=False))


class _Model:
    """A PyMC model as functions in JAX: of its value variables, or of the constrained values of its free variables.

    Args:
        model: the `pm.Model`.
        data_names: the `pm.Data` in it that are arguments of the functions; the numbers of others are part of them.

    Attributes:
        shapes: free variable -> its shape.
        value_shapes: free variable -> the shape of its value variable.
        data: name -> array.
    """

    def __init__(self, model: Any, data_names: Sequence[str]) -> None:
        self._model = model
        self._free = {rv.name: rv for rv in model.free_RVs}
        self._observed = {rv.name: rv for rv in model.observed_RVs}
        self._derived = {v.name: v for v in model.deterministics}
        self._value = {n: model.rvs_to_values[rv] for n, rv in self._free.items()}
        self._constrained = {n: rv.type(f"{n}_constrained") for n, rv in self._free.items()}
        self.data = {n: model.named_vars[n].get_value() for n in data_names}
        # all shapes are known, as JAX needs them
        tensor = _guest("pytensor.tensor").tensor
        self._data = {n: tensor(n, dtype=v.dtype, shape=v.shape) for n, v in self.data.items()}
        self.shapes, self.value_shapes = _shapes(model)
        values, params = list(self._value.values()), list(self._constrained.values())
        self.log_density = self._graph(values, [model.logp()])
        log_probs = model.logp(list(self._observed.values()), sum=False, jacobian=False) if self._observed else []
        self.likelihood = self._graph(values, log_probs)
        forward = [*self._free.values(), self._log_det()]
        self.forward = self._graph(values, model.replace_rvs_by_values(forward))
        self.inverse = self._graph(params, _replaced(self._values_of_free(), self._given_params()))
        self.derive = self._graph(values, model.replace_rvs_by_values(list(self._derived.values())))
        self.observe = self._graph([], [model.rvs_to_values[rv] for rv in self._observed.values()])
        drawn = _replaced(list(self._observed.values()), self._given_params())
        self._generators = {v: v.type() for v in _shared(drawn) if _is_generator(v)}
        self.replicate = self._graph([*params, *self._generators.values()], _replaced(drawn, self._generators))
        free = list(self._free.values())
        self._of_free = {v: v.type() for v in _shared(free) if _is_generator(v)}
        self.draw = self._graph([*self._of_free.values()], _replaced(free, self._of_free))

    @property
    def observed_names(self) -> tuple[str, ...]:
        return tuple(self._observed)

    @property
    def derived_names(self) -> tuple[str, ...]:
        return tuple(self._derived)

    @property
    def circular_names(self) -> tuple[str, ...]:
        """The angles: PyMC lets them go round and round."""
        kind = _guest("pymc.logprob.transforms").CircularTransform
        return tuple(n for n, rv in self._free.items() if isinstance(self._model.rvs_to_transforms[rv], kind))

    @property
    def n_generators(self) -> tuple[int, int]:
        """How many random generators the free variables have, and the observed ones."""
        return len(self._of_free), len(self._generators)

    @property
    def has_potentials(self) -> bool:
        """Whether the log density has terms that no variable is drawn from."""
        return bool(self._model.potentials)

    def _graph(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> _Graph:
        """A function of `inputs`, then of the data."""
        constant = _guest("pytensor.tensor").constant
        numbers = [v for v in _shared(outputs) if not _is_generator(v)]
        known = {v: self._data[v.name] if v.name in self._data else constant(v.get_value()) for v in numbers}
        outputs = _replaced(outputs, known)
        return _Graph([*inputs, *self._data.values()], outputs, check_bounds=self._model.check_bounds)

    def _given_params(self) -> dict[Any, Any]:
        return {self._free[n]: p for n, p in self._constrained.items()}

    def _values_of_free(self) -> list[Any]:
        found = []
        for rv in self._free.values():
            transform = self._model.rvs_to_transforms[rv]
            found.append(rv if transform is None else transform.forward(rv, *rv.owner.inputs))
        return found

    def _log_det(self) -> Any:
        total = _guest("pytensor.tensor").constant(0.0)
        for name, rv in self._free.items():
            transform = self._model.rvs_to_transforms[rv]
            if transform is not None:
                total = total + transform.log_jac_det(self._value[name], *rv.owner.inputs).sum()
        return total


def _shapes(model: Any) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Free variable -> its shape, and the shape of its value variable."""
    pairs = {rv.name: (rv, model.rvs_to_values[rv]) for rv in model.free_RVs}
    if any(None in v.type.shape for pair in pairs.values() for v in pair):
        known = model.eval_rv_shapes()
        both = {n: [known[v.name] for v in pair] for n, pair in pairs.items()}
    else:
        both = {n: [v.type.shape for v in pair] for n, pair in pairs.items()}
    own, of_value = ({n: tuple(int(k) for k in s[i]) for n, s in both.items()} for i in (0, 1))
    return own, of_value


def _arrays(model: _Model, data: Any) -> list[Array]:
    return [data[n] for n in model.data]


@dataclasses.dataclass(frozen=True)
class _LogDensity:
    model: _Model

    def __call__(self, u: Array, data: Any) -> Scalar:
        return self.model.log_density(*_values(self.model, u), *_arrays(self.model, data))[0]


@dataclasses.dataclass(frozen=True)
class _LogJoint:
    model: _Model

    def __call__(self, params: Mapping[str, Array], data: Any) -> Scalar:
        values = self.model.inverse(*_in_order(self.model, params), *_arrays(self.model, data))
        log_det = self.model.forward(*values, *_arrays(self.model, data))[-1]
        return self.model.log_density(*values, *_arrays(self.model, data))[0] - log_det


@dataclasses.dataclass(frozen=True)
class _Forward:
    model: _Model

    def __call__(self, u: Array, data: Any) -> tuple[dict[str, Array], Scalar]:
        *found, log_det = self.model.forward(*_values(self.model, u), *_arrays(self.model, data))
        params = {n: x.astype(u.dtype) for n, x in zip(self.model.shapes, found, strict=True)}
        return params, log_det.astype(u.dtype)


@dataclasses.dataclass(frozen=True)
class _Inverse:
    model: _Model

    def __call__(self, params: Mapping[str, Array], data: Any) -> Array:
        values = self.model.inverse(*_in_order(self.model, params), *_arrays(self.model, data))
        return jnp.concatenate([x.ravel().astype(jnp.result_type(float)) for x in values])


@dataclasses.dataclass(frozen=True)
class _OfParams:
    """Quantities by name, at constrained parameters: deterministic ones, or the pointwise log-likelihood."""

    model: _Model
    graph: _Graph
    names: tuple[str, ...]

    def __call__(self, params: Mapping[str, Array], data: Any) -> dict[str, Array]:
        values = self.model.inverse(*_in_order(self.model, params), *_arrays(self.model, data))
        return dict(zip(self.names, self.graph(*values, *_arrays(self.model, data)), strict=True))


@dataclasses.dataclass(frozen=True)
class _Observe:
    model: _Model

    def __call__(self, data: Any) -> dict[str, Array]:
        return dict(zip(self.model.observed_names, self.model.observe(*_arrays(self.model, data)), strict=True))


@dataclasses.dataclass(frozen=True)
class _Predictive:
    """Replicates of the observed variables, by PyTensor's JAX samplers."""

    model: _Model

    def __call__(self, key: PRNGKeyArray, params: Mapping[str, Array], data: Any) -> dict[str, Array]:
        generators = _generators(key, self.model.n_generators[1])
        drawn = self.model.replicate(*_in_order(self.model, params), *generators, *_arrays(self.model, data))
        return dict(zip(self.model.observed_names, drawn, strict=True))


@dataclasses.dataclass(frozen=True)
class _Prior:
    """Draws of the free variables, by PyTensor's JAX samplers."""

    model: _Model

    def __call__(self, key: PRNGKeyArray, data: Any) -> dict[str, Array]:
        drawn = self.model.draw(*_generators(key, self.model.n_generators[0]), *_arrays(self.model, data))
        return {n: x.astype(jnp.result_type(float)) for n, x in zip(self.model.shapes, drawn, strict=True)}


def _generators(key: PRNGKeyArray, n: int) -> list[dict[str, PRNGKeyArray]]:
    """Random generators as PyTensor in JAX has them: dicts that it puts the next key into."""
    return [{"jax_state": k} for k in jax.random.split(key, n)]


def _values(model: _Model, u: Array) -> list[Array]:
    """The value variables, out of one vector."""
    parts, start = [], 0
    for shape in model.value_shapes.values():
        parts.append(u[start : start + math.prod(shape)].reshape(shape))
        start += math.prod(shape)
    return parts


def _in_order(model: _Model, params: Mapping[str, Array]) -> list[Array]:
    return [jnp.asarray(params[n], jnp.result_type(float)) for n in model.shapes]


def is_pymc_model(value: Any) -> bool:
    """Whether it is a `pm.Model`, without importing PyMC."""
    return any(f"{c.__module__}.{c.__name__}" == "pymc.model.core.Model" for c in type(value).__mro__)


def _refuse(model: Any) -> None:
    """Raise for what no target can be made of.

    Raises:
        ValueError: naming the variables.
    """
    free = model.free_RVs
    if not free:
        remedy = "every variable in it is observed" if model.observed_RVs else "it has no random variables"
        raise ValueError(requirement("model", "have at least one free variable", "none", remedy))
    discrete = [rv for rv in free if not rv.type.dtype.startswith("float")]
    if discrete:
        got = "the discrete " + ", ".join(repr(rv.name) for rv in discrete)
        remedy = "sum them out by hand (pm.Mixture, or a pm.Potential with logsumexp), since flows are continuous"
        raise ValueError(requirement("model", "have continuous free variables", got, remedy))
    if any(_is_generator(v) for v in _shared([model.logp()])):
        must, got = "have a log density without random numbers", "a pm.Minibatch, or a draw within it"
        raise ValueError(requirement("model", must, got, "give it all of the data; from_likelihood makes minibatches"))


def from_pymc(model: Any) -> Target:
    """A target from a PyMC model.

    The point of R^d is the model's value variables, raveled in their order, and its log density the model's own, by
    way of PyTensor's JAX functions. The `pm.Data` in the model are the target's data: other numbers of the same shapes
    (`target.replace_data`) compile nothing again. Where PyTensor needs their numbers to know a shape, they become part
    of the model instead. Dimensions, coordinates and deterministic quantities are the model's.

    Args:
        model: a `pm.Model` with continuous free variables; its observed data are in it.

    Raises:
        ValueError: if it is something else, has no free variable or a discrete one, takes minibatches, or does what
            PyTensor has no JAX function for.
        ImportError: without pymc.
    """
    if not is_pymc_model(model):
        got = getattr(model, "__name__", f"a {type(model).__name__}")
        raise ValueError(requirement("model", "be a pm.Model", got, "call the function that makes one, or its class"))
    _load()
    _refuse(model)
    failure: Exception | None = None
    for names in dict.fromkeys((tuple(v.name for v in model.data_vars), ())):
        try:
            target = _target(model, names)
            jax.eval_shape(target.log_density, jax.ShapeDtypeStruct((target.size,), jnp.result_type(float)))
        except Exception as error:  # what a model's expressions may raise has no end
            failure = error
        else:
            return check_gradient(target, "model")
    remedy = "PyTensor must be able to put it into JAX; else write it as a log density for from_function"
    raise ValueError(f"{raised('model', failure)}; {remedy}") from failure  # pyright: ignore[reportArgumentType]


def _target(pymc_model: Any, data_names: tuple[str, ...]) -> Target:
    model = _Model(pymc_model, data_names)
    sizes = {n: math.prod(s) for n, s in model.value_shapes.items()}
    observed, derived = model.observed_names, model.derived_names
    dims, coords = _labels(pymc_model, (*model.shapes, *observed, *derived))
    return Target(
        MappedSpace(model.shapes, sizes, _Forward(model), _Inverse(model), circular=model.circular_names),
        _LogJoint(model),
        model.data or None,
        log_density_in_space=_LogDensity(model),
        log_likelihood=_OfParams(model, model.likelihood, observed) if observed else None,
        deterministic=_OfParams(model, model.derive, derived) if derived else None,
        predictive=_predictive_of(model) if observed else None,
        draw_prior=None if model.has_potentials else _prior_of(model),
        observe=_Observe(model) if observed else None,
        observed_names=observed,
        name=pymc_model.name or "model",
        coords=coords,
        dims=dims,
    )


def _predictive_of(model: _Model) -> _Predictive | None:
    """Replicates, where PyTensor has JAX samplers for them."""
    params = {n: jax.ShapeDtypeStruct(s, jnp.result_type(float)) for n, s in model.shapes.items()}
    predictive = _Predictive(model)
    return predictive if _can_draw(predictive, params, as_data(model.data)) else None


def _prior_of(model: _Model) -> _Prior | None:
    """Draws of the prior, where PyTensor has JAX samplers for it."""
    prior = _Prior(model)
    return prior if _can_draw(prior, as_data(model.data)) else None


def _can_draw(draw: Callable[..., Any], *arguments: Any) -> bool:
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        jax.eval_shape(draw, key, *arguments)
    except Exception:  # whatever a distribution without a sampler raises
        return False
    return True


def _labels(model: Any, names: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, Any]]:
    """(variable -> dimensions, dimension -> labels), numbers where the model has no labels."""
    dims = {}
    for name in names:
        given = model.named_vars_to_dims.get(name)
        if given is not None:
            dims[name] = tuple(d or f"{name}_dim_{i}" for i, d in enumerate(given))
    used = dict.fromkeys(d for own in dims.values() for d in own if d in model.coords)
    lengths = {d: int(model.dim_lengths[d].eval()) for d in used if model.coords[d] is None}
    return dims, {d: range(lengths[d]) if d in lengths else model.coords[d] for d in used}
