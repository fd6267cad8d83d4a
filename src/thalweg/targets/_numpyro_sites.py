"""What a NumPyro model's trace says of a site: its support, its dimensions, and why it may be refused."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from thalweg._core import requirement
from thalweg.targets._support import (
    Support,
    cholesky_corr,
    circular,
    covariance,
    greater_than,
    interval,
    less_than,
    ordered,
    positive,
    positive_ordered,
    real,
    simplex,
    unit_vector,
    zero_sum,
)

_SCALARS: dict[str, Callable[..., Support]] = {
    "real": real,
    "positive": positive,
    "nonnegative": positive,
    "softplus_positive": positive,
    "circular": circular,
}
_VECTORS: dict[str, Callable[..., Support]] = {
    "simplex": simplex,
    "ordered_vector": ordered,
    "positive_ordered_vector": positive_ordered,
    "sphere": unit_vector,
    "zero_sum": zero_sum,
}
_MATRICES: dict[str, Callable[..., Support]] = {"corr_cholesky": cholesky_corr, "positive_definite": covariance}


_LOCATED = ("Normal", "StudentT", "Cauchy", "Laplace", "Logistic", "Gumbel", "LogNormal")
"""Distributions with a location and a scale, of the number or of its logarithm."""
_LOCATED_VECTORS = ("MultivariateNormal", "MultivariateStudentT")


class Place(NamedTuple):
    """What a site is drawn around: location, scale (a lower triangular matrix for some vectors), whether it walks."""

    loc: Any
    scale: Any
    walks: bool = False


class RefusedError(ValueError):
    """A model that no target can be made of; its message is for the user."""


def innermost(constraint: Any) -> Any:
    """A constraint without its `independent` wrappers."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


def family(site: Mapping[str, Any]) -> str:
    """The name of a site's distribution."""
    return type(_bare(site["fn"])).__name__


_WRAPPERS = ("ExpandedDistribution", "Independent", "MaskedDistribution")


def _bare(fn: Any) -> Any:
    """A distribution without what is wrapped around it."""
    while type(fn).__name__ in _WRAPPERS:
        fn = fn.base_dist
    return fn


def place_of(site: Mapping[str, Any]) -> Place | None:
    """What a site is drawn around, None where that is not known."""
    fn, shape = _bare(site["fn"]), jnp.shape(site["value"])
    if family(site) in _LOCATED:
        return Place(jnp.broadcast_to(fn.loc, shape), jnp.broadcast_to(fn.scale, shape))
    if len(shape) == 1 and family(site) in _LOCATED_VECTORS:
        return Place(jnp.broadcast_to(fn.loc, shape), jnp.broadcast_to(fn.scale_tril, shape * 2))
    if len(shape) == 1 and family(site) == "GaussianRandomWalk":
        return Place(jnp.zeros(shape), jnp.broadcast_to(fn.scale, shape), walks=True)
    return None


def log_prob_around(site: Mapping[str, Any], standard: Any) -> Any:
    """A site's log density at location + scale * standard, None where it is not of that form.

    As if around 0: with a scale far below the location, nothing of `standard` is left in the sum.
    """
    place = place_of(site)
    if place is None or place.walks or family(site) == "LogNormal":
        return None
    standard = standard.reshape(place.loc.shape)
    value = place.scale @ standard if place.scale.ndim > place.loc.ndim else place.scale * standard
    log_prob = _around_zero(site["fn"]).log_prob(value)
    return log_prob if site["scale"] is None else site["scale"] * log_prob


def _around_zero(fn: Any) -> Any:
    moved = copy.copy(fn)
    if type(fn).__name__ in _WRAPPERS:
        moved.base_dist = _around_zero(fn.base_dist)
    else:
        moved.loc = jnp.zeros_like(fn.loc)
    return moved


def unobserved(sites: Mapping[str, Any]) -> list[str]:
    """The latent halves of sites that were given an `obs_mask`."""
    end = "_unobserved"
    return [n for n in sites if n.endswith(end) and f"{n.removesuffix(end)}_observed" in sites]


def unmasked(fn: Any) -> Any:
    """A distribution without its mask."""
    match type(fn).__name__:
        case "MaskedDistribution":
            return fn.base_dist
        case "ExpandedDistribution":
            return unmasked(fn.base_dist).expand(fn.batch_shape)
        case _:
            return fn


def support_of(name: str, site: Mapping[str, Any], bound: Callable[[str, Any], Any]) -> Support:
    """Our support for a latent site.

    Args:
        name: the site's.
        site: its entry in a trace.
        bound: (attribute, value) -> what our makers take as a bound.

    Raises:
        ValueError: for a constraint that has none here; the site is named.
    """
    constraint = innermost(site["fn"].support)
    kind = type(constraint).__name__
    words = "".join(("_" if c.isupper() and i else "") + c.lower() for i, c in enumerate(kind.lstrip("_")))
    shape = jnp.shape(site["value"])
    if words in _SCALARS:
        return _SCALARS[words](shape)
    if words == "zero_sum" and constraint.event_dim > 1:
        remedy = "make it of vectors that sum to 0, and subtract means"
        got = f"zero_sum over {constraint.event_dim} axes"
        raise RefusedError(requirement(f"site {name!r}", "have a support that is known here", got, remedy))
    if words in _VECTORS:
        return _VECTORS[words](shape[-1], shape[:-1])
    if words in _MATRICES:
        return _MATRICES[words](shape[-1], shape[:-2])
    if words in ("unit_interval", "interval", "open_interval"):
        low, high = (bound(which, getattr(constraint, which)) for which in ("lower_bound", "upper_bound"))
        return interval(low, high, shape)
    if words in ("greater_than", "greater_than_eq"):
        return greater_than(bound("lower_bound", constraint.lower_bound), shape)
    if words in ("less_than", "less_than_eq"):
        return less_than(bound("upper_bound", constraint.upper_bound), shape)
    if words == "corr_matrix":
        remedy = "use LKJCholesky and L @ L.T"
        raise RefusedError(
            requirement(f"site {name!r}", "have a support that is known here", f"{words} of LKJ", remedy)
        )
    remedy = "write it through parameters that are real, positive, bounded, ordered, or on a simplex or a sphere"
    raise RefusedError(
        requirement(f"site {name!r}", "have a support that is known here", f"{words} of {family(site)}", remedy)
    )


def refuse_early(site: Mapping[str, Any]) -> None:
    """Called at each site before it is drawn."""
    name = site["name"]
    if site["type"] == "param":
        remedy = "give it a prior with numpyro.sample, or a number"
        raise RefusedError(requirement(f"site {name!r}", "be a sample site", "a param, which has no prior", remedy))
    if site["type"] == "sample" and not site["is_observed"] and family(site) == "ImproperUniform":
        remedy = "give it a proper prior, however wide, or use from_function"
        raise RefusedError(requirement(f"site {name!r}", "have a proper prior", "ImproperUniform", remedy))


def refuse_site(name: str, site: Mapping[str, Any]) -> None:
    """Called for each site of a trace."""
    if site["type"] == "plate":
        size, subsample = site["args"]
        if subsample is not None and subsample != size:
            remedy = "leave out subsample_size; from_likelihood makes targets for minibatches"
            raise RefusedError(
                requirement(
                    f"plate {name!r}", "run over all of its data", f"subsample_size={subsample} of {size}", remedy
                )
            )
    is_latent = site["type"] == "sample" and not site["is_observed"]
    if is_latent and getattr(innermost(site["fn"].support), "is_discrete", False):
        remedy = (
            "give the model its data if it is observed; else sum it out by hand (logsumexp over its values, in a "
            "mixture or numpyro.factor), since flows are continuous"
        )
        raise RefusedError(requirement(f"site {name!r}", "be continuous", f"the discrete {family(site)}", remedy))


def dims_of(name: str, site: Mapping[str, Any], plates: Mapping[str, int]) -> tuple[str, ...]:
    """Plate names for the axes that are plates', name_dim_i for others."""
    shape = jnp.shape(site["value"])
    names = [f"{name}_dim_{i}" for i in range(len(shape))]
    stack = site["cond_indep_stack"]
    # a deterministic site does not say which of its axes are events': those behind as many as its plates need
    batch = len(shape) - len(site["fn"].event_shape) if "fn" in site else max((-f.dim for f in stack), default=0)
    for frame in stack:
        axis = batch + frame.dim
        if frame.name in plates and 0 <= axis < len(shape) and shape[axis] == frame.size:
            names[axis] = frame.name
    return tuple(names)
