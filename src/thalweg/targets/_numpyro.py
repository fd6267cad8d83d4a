"""Targets from NumPyro models; the only file that knows NumPyro."""

import contextlib
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Var

from thalweg._core import Array, PRNGKeyArray, import_guest, one_at_a_time, requirement
from thalweg.targets._check import check_gradient, raised
from thalweg.targets._data import as_data
from thalweg.targets._numpyro_sites import (
    RefusedError,
    dims_of,
    family,
    innermost,
    log_prob_around,
    place_of,
    refuse_early,
    refuse_site,
    support_of,
    unmasked,
    unobserved,
)
from thalweg.targets._space import AbstractSpace, Space
from thalweg.targets._support import Around, BoundFunction, Support
from thalweg.targets._target import Target


@contextlib.contextmanager
def _usual_promotion() -> Iterator[None]:
    """NumPyro and its users' models are written for JAX's default promotion rules, and for one thread."""
    with one_at_a_time(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@dataclasses.dataclass(frozen=True)
class _Constant:
    """An array that stays outside the data, equal where its numbers are."""

    numbers: bytes
    shape: tuple[int, ...]
    dtype: str

    def array(self) -> np.ndarray:
        return np.frombuffer(self.numbers, self.dtype).reshape(self.shape)


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray)


class _Marker:
    """Stands where the data go."""


_DATA = _Marker()


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with those of its arguments that are not data; equal where they are.

    Attributes:
        function: the model.
        structure: of the dict of its arguments.
        leaves: the arguments' leaves, `_DATA` for those that are data.
    """

    function: Callable[..., Any]
    structure: Any
    leaves: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The model's own."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def arguments(self, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(positional, keyword) arguments, with the data in their places."""
        arrays = iter(jax.tree.leaves(data))
        leaves = [next(arrays) if x is _DATA else x.array() if isinstance(x, _Constant) else x for x in self.leaves]
        named = jax.tree.unflatten(self.structure, leaves)
        signature = inspect.signature(self.function)
        bound = inspect.BoundArguments(signature, {k: named[k] for k in signature.parameters if k in named})  # pyright: ignore[reportArgumentType]
        return bound.args, bound.kwargs

    def sites(self, params: Mapping[str, Array], data: Any, key: PRNGKeyArray | None = None) -> dict[str, Any]:
        """The trace of one run with the latent values `params`; those that are missing are drawn, with `key`."""
        key = jax.random.key(0) if key is None else key
        handlers = import_guest("numpyro.handlers", "numpyro")
        arguments, keywords = self.arguments(data)
        with _usual_promotion():
            seeded = handlers.seed(handlers.substitute(self.function, data=dict(params)), key)
            return handlers.trace(seeded).get_trace(*arguments, **keywords)


@dataclasses.dataclass(frozen=True)
class _LogJoint:
    model: Model

    def __call__(
        self, params: Mapping[str, Array], data: Any, standard: Mapping[str, Array] = MappingProxyType({})
    ) -> Array:
        log_probs = _log_probs(self.model, params, data, standard)
        return sum(jax.tree.leaves({k: v.sum() for k, v in log_probs.items()}), start=jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class _LogLikelihood:
    """Of each observation, as NumPyro has it: masks included, scales left out."""

    model: Model
    names: tuple[str, ...]

    def __call__(self, params: Mapping[str, Array], data: Any) -> dict[str, Array]:
        sites = self.model.sites(params, data)
        with _usual_promotion():
            log_probs = {n: sites[n]["fn"].log_prob(sites[n]["value"]) for n in self.names}
        return {n: jnp.asarray(v, jnp.result_type(float)) for n, v in log_probs.items()}


def _log_probs(
    model: Model, params: Mapping[str, Array], data: Any, standard: Mapping[str, Array] = MappingProxyType({})
) -> dict[str, Array]:
    """Site -> its log density, entry by entry; scales, masks and factors included.

    That of sites in `standard` by how far they are from where they are drawn around, in units of its scale.

    With `obs_mask` NumPyro has a latent entry beside each observation too, where the mask leaves it without a density:
    it gets the one that it has elsewhere, which integrates to 1.
    """
    numpyro = import_guest("numpyro", "numpyro")
    arguments, keywords = model.arguments(data)
    with _usual_promotion():
        seeded = numpyro.handlers.seed(model.function, jax.random.key(0))
        try:
            log_probs, sites = numpyro.infer.util.compute_log_probs(
                seeded, arguments, keywords, dict(params), sum_log_prob=False
            )
            exact = {n: log_prob_around(sites[n], z) for n, z in standard.items()}
            log_probs |= {n: log_prob for n, log_prob in exact.items() if log_prob is not None}
            log_probs |= {n: unmasked(sites[n]["fn"]).log_prob(sites[n]["value"]) for n in unobserved(sites)}
        except ValueError as error:
            # NumPyro speaks of a guide where an observation has another shape than its distribution
            found = re.search(r"Model and guide shapes disagree at site: '(.*)': (\(.*\)) vs (\(.*\))", str(error))
            if found is None:
                raise
            site, own, seen = found.groups()
            raise ValueError(f"site '{site}' has shape {own}, but what is observed there {seen}") from error
        return {k: jnp.asarray(v, jnp.result_type(float)) for k, v in log_probs.items()}


@dataclasses.dataclass(frozen=True)
class _Values:
    """The values of some sites: deterministic or observed ones."""

    model: Model
    names: tuple[str, ...]

    def __call__(self, params: Mapping[str, Array], data: Any) -> dict[str, Array]:
        sites = self.model.sites(params, data)
        return {n: jnp.asarray(sites[n]["value"]) for n in self.names}


@dataclasses.dataclass(frozen=True)
class _Observed:
    values: _Values

    def __call__(self, data: Any) -> dict[str, Array]:
        return self.values({}, data)


@dataclasses.dataclass(frozen=True)
class _Predictive:
    """Replicates of the observed sites, in order: where one depends on those before it, on their replicates.

    Inside `scan` they depend on the observations before them: NumPyro keeps those there.
    """

    model: Model
    names: tuple[str, ...]

    def __call__(self, key: PRNGKeyArray, params: Mapping[str, Array], data: Any) -> dict[str, Array]:
        seen, drawn = self.model.sites(params, data), {}
        handlers = import_guest("numpyro.handlers", "numpyro")
        free = dataclasses.replace(self.model, function=handlers.uncondition(self.model.function))
        replicated = free.sites(params, data, key)
        with _usual_promotion():
            for name, own_key in zip(self.names, jax.random.split(key, len(self.names)), strict=True):
                shape, value = jnp.shape(seen[name]["value"]), replicated[name]["value"]
                if jnp.shape(value) != shape:
                    # observations may have more axes than their distribution; each then needs a draw of its own
                    fn = seen[name]["fn"]
                    extra = shape[: len(shape) - len(tuple(fn.shape()))]
                    value = jnp.broadcast_to(fn.sample(own_key, extra), shape)
                drawn[name] = value
        return drawn


@dataclasses.dataclass(frozen=True)
class _Prior:
    """A draw of the latent sites, each from its own distribution given those before it."""

    model: Model
    names: tuple[str, ...]

    def __call__(self, key: PRNGKeyArray, data: Any) -> dict[str, Array]:
        sites = self.model.sites({}, data, key)
        return {n: jnp.asarray(sites[n]["value"], jnp.result_type(float)) for n in self.names}


@dataclasses.dataclass(frozen=True)
class _SiteBound:
    """A bound of a site's support, which depends on the data or on sites before it."""

    model: Model
    site: str
    which: str

    def __call__(self, earlier: Mapping[str, Array], data: Any) -> Array:
        fn = self.model.sites(earlier, data)[self.site]["fn"]
        return jnp.asarray(getattr(innermost(fn.support), self.which), jnp.result_type(float))


@dataclasses.dataclass(frozen=True)
class _SitePlace:
    """What a site is drawn around, and in which units, which depends on sites before it."""

    model: Model
    site: str

    def __call__(self, earlier: Mapping[str, Array], data: Any) -> tuple[Array, Array]:
        place = place_of(self.model.sites(earlier, data)[self.site])
        if place is None:
            raise TypeError(f"{self.site} has no location and scale")
        return place.loc, place.scale


@dataclasses.dataclass
class _Summary:
    """What a trace says about a model, with no arrays in it but bounds."""

    supports: dict[str, Support]
    observed: tuple[str, ...]
    deterministic: tuple[str, ...]
    coords: dict[str, range]
    dims: dict[str, tuple[str, ...]]
    can_draw: bool


def _bound_of(model: Model, site: str, which: str, value: Any) -> Any:
    """A bound as a number, or as a function where it was made while the model ran: from data or earlier sites."""
    if isinstance(value, Tracer):
        return BoundFunction(_SiteBound(model, site, which), needs_data=True)
    return value


def _summarise(model: Model, sites: Mapping[str, Any]) -> _Summary:
    for name, site in sites.items():
        refuse_site(name, site)
    samples = {n: s for n, s in sites.items() if s["type"] == "sample"}
    latent = {n: s for n, s in samples.items() if not s["is_observed"]}
    observed = tuple(n for n, s in samples.items() if s["is_observed"] and family(s) != "Unit")
    if not latent:
        remedy = "every numpyro.sample in it is observed" if samples else "it has no numpyro.sample"
        raise RefusedError(requirement("model", "have at least one latent site", f"none in {model.name}", remedy))
    if empty := [n for n, s in latent.items() if np.size(s["value"]) == 0]:
        got = f"`{empty[0]}` of shape {np.shape(latent[empty[0]]['value'])}"
        raise RefusedError(requirement("model", "have numbers in every latent site", got))
    deterministic = tuple(n for n, s in sites.items() if s["type"] == "deterministic" and _is_array_like(s["value"]))
    plates = {n: s["args"][0] for n, s in sites.items() if s["type"] == "plate" and n not in samples}
    dims = {
        n: dims_of(n, sites[n], plates)
        for n in (*latent, *observed, *deterministic)
        if any(f.name in plates for f in sites[n]["cond_indep_stack"])
    }
    used = {d for names in dims.values() for d in names}
    coords = {n: range(size) for n, size in plates.items() if n in used}
    return _Summary(
        {n: support_of(n, s, functools.partial(_bound_of, model, n)) for n, s in latent.items()},
        observed,
        deterministic,
        coords,
        dims,
        # factors and scales are no part of what sites are drawn from
        all(family(s) != "Unit" and s.get("scale") is None for s in samples.values()),
    )


def _is_array_like(value: Any) -> bool:
    return _is_array(value) or isinstance(value, int | float | np.generic)


def _split(arguments: dict[str, Any], is_data: Callable[[Any], bool]) -> tuple[tuple[Any, ...], Any, Any]:
    """(leaves with markers for data, structure, data as argument name -> arrays)."""
    leaves, structure = jax.tree.flatten(arguments)
    kept = []
    for leaf in leaves:
        if _is_array(leaf):
            array = None if is_data(leaf) else np.asarray(leaf)
            kept.append(_DATA if array is None else _Constant(array.tobytes(), array.shape, array.dtype.str))
        else:
            kept.append(leaf)
    data = jax.tree.map(lambda x: x if _is_array(x) and is_data(x) else None, arguments)
    return tuple(kept), structure, {k: v for k, v in data.items() if jax.tree.leaves(v)} or None


def _look(model: Model, data: Any) -> _Summary:
    """Run the model once, on shapes alone.

    Raises:
        RefusedError: for what no target can be made of.
        Exception: whatever the model raises.
    """
    found: list[_Summary] = []
    handlers = import_guest("numpyro.handlers", "numpyro")
    guarded = dataclasses.replace(model, function=handlers.substitute(model.function, substitute_fn=refuse_early))

    def look(data: Any) -> None:
        found.append(_summarise(model, guarded.sites({}, data)))

    jax.eval_shape(look, data)
    return found[0]


def _noncentred(model: Model, data: Any, supports: dict[str, Support]) -> Space | None:
    """The space where sites whose scale depends on others before are measured from what they are drawn around."""
    walks: dict[str, bool] = {}

    def look(params: dict[str, Array], data: Any) -> dict[str, tuple[Array, Array]]:
        sites = model.sites(params, data)
        places = {n: place_of(sites[n]) for n in params}
        walks.update({n: place.walks for n, place in places.items() if place})
        return {n: (place.loc, place.scale) for n, place in places.items() if place}

    shapes = {n: jax.ShapeDtypeStruct(s.shape, jnp.result_type(float)) for n, s in supports.items()}
    traced, out = jax.make_jaxpr(look, return_shape=True)(shapes, data)
    # as JAX orders a dict
    depends = _dependence(traced.jaxpr, sorted(shapes))
    of_loc, of_scale = (dict(zip(sorted(out), depends[i::2], strict=True)) for i in range(2))
    order = list(supports)
    chosen = {
        n: Around(_SitePlace(model, n), walks[n])
        for n in out
        # inside a loop a site is drawn around its own last value
        if of_scale[n] and of_loc[n] | of_scale[n] <= set(order[: order.index(n)])
    }
    new = {n: dataclasses.replace(s, around=chosen.get(n)) for n, s in supports.items()}
    return Space(new) if chosen else None


def _dependence(jaxpr: Any, names: list[str]) -> list[set[str]]:
    """For each output of a traced function, which of its first arguments, by name, it may depend on."""
    seen: dict[Any, set[str]] = {v: {n} for v, n in zip(jaxpr.invars[: len(names)], names, strict=True)}

    def of(variables: Any) -> set[str]:
        return set().union(*(seen.get(v, set()) for v in variables if isinstance(v, Var)))

    for equation in jaxpr.eqns:
        seen |= dict.fromkeys(equation.outvars, of(equation.invars))
    return [of([v]) for v in jaxpr.outvars]


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Target:
    """A target from a NumPyro model and its arguments.

    Array arguments become the target's data, by argument name: new numbers of the same shapes compile nothing again.
    Everything else is part of the model. Where a model needs an array's numbers while it is traced, as in
    `numpyro.plate("group", len(np.unique(index)))`, its integer arrays become part of the model too, and if that is
    not enough all arrays.

    Args:
        model: the model: continuous latent sites, each with a proper prior.
        *args: its positional arguments, observations among them.
        **kwargs: its keyword arguments.

    Raises:
        ValueError: if an argument does not fit, the model raises, has no latent sites, or has a site that is discrete,
            improper, a param, or of a support not known here, or a subsampled plate.
        ImportError: without numpyro.
    """
    import_guest("numpyro", "numpyro")
    if not callable(model):
        raise ValueError(requirement("model", "be a NumPyro model, a function", f"a {type(model).__name__}"))
    try:
        arguments = inspect.signature(model).bind(*args, **kwargs).arguments
    except TypeError as error:
        name = getattr(model, "__name__", "model")
        raise ValueError(requirement("args", f"fit {name}{inspect.signature(model)}", str(error))) from error
    summary, bound, data = _first_that_runs(model, dict(arguments))
    observed = summary.observed
    target = Target(
        Space(summary.supports),
        _LogJoint(bound),
        data,
        log_likelihood=_LogLikelihood(bound, observed) if observed else None,
        deterministic=_Values(bound, summary.deterministic) if summary.deterministic else None,
        predictive=_Predictive(bound, observed) if observed else None,
        draw_prior=_Prior(bound, tuple(summary.supports)) if summary.can_draw else None,
        observe=_Observed(_Values(bound, observed)) if observed else None,
        observed_names=observed,
        name=bound.name,
        coords=summary.coords,
        dims=summary.dims,
        noncentred_space=_noncentred(bound, as_data(data), summary.supports),
    )
    return check_gradient(target, bound.name)


def _first_that_runs(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[_Summary, Model, Any]:
    """Fewer and fewer arrays as data, until the model can be traced."""
    rules: tuple[Callable[[Any], bool], ...] = (
        lambda x: True,
        lambda x: jnp.issubdtype(x.dtype, jnp.inexact),
        lambda x: False,
    )
    tried: set[tuple[bool, ...]] = set()
    failure: Exception | None = None
    name = getattr(function, "__name__", type(function).__name__)
    for is_data in rules:
        leaves, structure, data = _split(arguments, is_data)
        pattern = tuple(x is _DATA for x in leaves)
        if pattern in tried:
            continue
        tried.add(pattern)
        model = Model(function, structure, leaves)
        _check_constants(model)
        arrays = as_data(data)
        try:
            return _look(model, arrays), model, data
        except RefusedError:
            raise
        except Exception as error:
            failure = error
    raise ValueError(raised(name, failure)) from failure  # pyright: ignore[reportArgumentType]


def _check_constants(model: Model) -> None:
    for leaf in model.leaves:
        try:
            hash(leaf)
        except TypeError as error:
            must = "be arrays, or hashable (numbers, strings, tuples, functions)"
            raise ValueError(
                requirement("args", must, f"a {type(leaf).__name__}", "close the model over it")
            ) from error


@functools.cache
def _distribution_class() -> Any:
    """The class that `as_numpyro` makes one of; NumPyro is imported when it is first asked for."""
    distribution = import_guest("numpyro.distributions", "numpyro")

    class FlowDistribution(distribution.Distribution):
        """A flow on R^d as a NumPyro distribution, with the way from its points to named parameters."""

        support = distribution.constraints.real_vector
        reparametrized_params: ClassVar[list[str]] = []
        pytree_data_fields = ("flow", "space", "data")

        def __init__(self, flow: Any, space: Any, data: Any) -> None:
            self.flow, self.space, self.data = flow, space, data
            super().__init__(batch_shape=(), event_shape=flow.shape)

        def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
            key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
            return self.flow.sample(key, sample_shape)

        def log_prob(self, value: Array) -> Array:
            return self.flow.log_prob(value)

        def constrain(self, u: Array) -> dict[str, Array]:
            """Name -> constrained parameter at a point of R^d; batches go through jax.vmap."""
            return self.space.constrain(u, self.data)[0]

    return FlowDistribution


def as_numpyro(flow: Any, space: AbstractSpace, data: Any) -> Any:
    """A flow on R^d as a NumPyro distribution whose `constrain` makes a dict of parameters of a draw.

    Raises:
        ImportError: without numpyro.
    """
    return _distribution_class()(flow, space, data)
