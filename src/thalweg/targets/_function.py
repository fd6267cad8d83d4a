"""Targets from functions written in JAX."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from thalweg._core import requirement
from thalweg.targets._check import check_log_density
from thalweg.targets._space import Space
from thalweg.targets._support import Support
from thalweg.targets._target import Target


@dataclasses.dataclass(frozen=True)
class WithoutData:
    """A function of (..., data) made from one that takes no data; equal where the functions are."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """The function of all but the last argument."""
        return self.function(*arguments[:-1])


@dataclasses.dataclass(frozen=True)
class PriorPlusLikelihood:
    """(params, data) -> log prior + sum of the pointwise log-likelihood; equal where the functions are."""

    log_prior: Callable[..., Any]
    log_likelihood: Callable[..., Any]

    def __call__(self, params: Mapping[str, Any], data: Any) -> Any:
        """The log joint density."""
        terms = [jnp.sum(t) for t in jax.tree.leaves(self.log_likelihood(params, data))]
        return self.log_prior(params) + sum(terms[1:], start=terms[0])


def _arity(function: Callable[..., Any], argument: str) -> tuple[int, int]:
    """(least, most) numbers of positional arguments; most is large for *args or where it cannot be told."""
    if not callable(function):
        raise ValueError(requirement(argument, "be a function", f"a {type(function).__name__}"))
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0, 99
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least = sum(p.default is p.empty for p in positional)
    return least, 99 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)


def _with_data(function: Callable[..., Any] | None, argument: str, data: Any, before: str = "params") -> Any:
    """`function` as one of (..., data), by its signature."""
    if function is None:
        return None
    n = before.count(",") + 1
    least, most = _arity(function, argument)
    if least > n + 1 or most < n:
        counted = f"{least} arguments" if least == most else f"{least} to {most} arguments"
        raise ValueError(requirement(argument, f"take ({before}) or ({before}, data)", f"a function of {counted}"))
    if data is None and least > n:
        raise ValueError(requirement("data", f"be given, since `{argument}` takes ({before}, data)", "None"))
    if data is not None and most >= n + 1:
        return function
    return WithoutData(function)


def _observed_names(target: Target) -> tuple[str, ...]:
    """The data's keys that the pointwise likelihood or the predictive draws speak of."""
    if not isinstance(target.data, Mapping):
        return ()
    likelihood, predictive = target.log_likelihood, target.predictive

    def parts(u: Any, data: Any) -> list[Any]:
        params = target.space.constrain(u, data)[0]
        first = [] if likelihood is None else [likelihood(params, data)]
        return first if predictive is None else [*first, predictive(jax.random.key(0), params, data)]

    found = jax.eval_shape(parts, jax.ShapeDtypeStruct((target.size,), jnp.result_type(float)), target.data)
    spoken_of = {n for part in found if isinstance(part, Mapping) for n in part}
    return tuple(n for n in target.data if n in spoken_of)


def _build(space: Space, log_joint: Callable[..., Any], data: Any, **rest: Any) -> Target:
    target = check_log_density(Target(space, log_joint, data, **rest))
    return target.changed(observed_names=_observed_names(target))


def _function_name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def from_function(
    log_density: Callable[..., Any],
    supports: Mapping[str, Support],
    data: Any = None,
    *,
    log_likelihood: Callable[..., Any] | None = None,
    deterministic: Callable[..., Any] | None = None,
    predictive: Callable[..., Any] | None = None,
    simulate: Callable[..., Any] | None = None,
    name: str | None = None,
) -> Target:
    """A target from a log density over constrained parameters, written in JAX.

    Args:
        log_density: (params) or (params, data) -> scalar, up to a constant; params is a dict of constrained arrays, and
            the log-Jacobians of the supports are not its work.
        supports: name -> support: `real()`, `positive(3)`, `interval(0, lambda earlier: earlier["tau"])`, ...
        data: a pytree of arrays; other numbers of the same shapes compile nothing again.
        log_likelihood: (params, data) -> one number for each observation, an array or a dict of arrays; for LOO.
        deterministic: (params, data) -> dict of derived quantities.
        predictive: (key, params, data) -> dict of replicated observations.
        simulate: (key, data) -> (params, data of the same form), both drawn from the model; for `calibrate`.
        name: for reports; the function's own by default.

    Raises:
        ValueError: if an argument is not what it should be, the data hold NaN or text, or the log density raises or
            does not return one float.
    """
    space = Space(supports)
    joint = _with_data(log_density, "log_density", data)
    if data is not None and isinstance(joint, WithoutData):
        got = "a function of the parameters alone"
        raise ValueError(
            requirement("log_density", "take (params, data) where `data` is given", got, "or leave out `data`")
        )
    return _build(
        space,
        joint,
        data,
        log_likelihood=_with_data(log_likelihood, "log_likelihood", data),
        deterministic=_with_data(deterministic, "deterministic", data),
        predictive=_with_data(predictive, "predictive", data, "key, params"),
        simulate=simulate,
        name=name or _function_name(log_density),
    )


def from_likelihood(
    log_prior: Callable[..., Any],
    log_likelihood: Callable[..., Any],
    supports: Mapping[str, Support],
    data: Any,
    *,
    deterministic: Callable[..., Any] | None = None,
    predictive: Callable[..., Any] | None = None,
    simulate: Callable[..., Any] | None = None,
    name: str | None = None,
) -> Target:
    """A target split into prior and pointwise likelihood, so that it can be fitted on minibatches of rows.

    Args:
        log_prior: params -> scalar.
        log_likelihood: (params, data) -> (n,) array, one number for each row; a dict of such arrays of one length too.
            Given a batch of rows, it returns that batch's numbers.
        supports: name -> support.
        data: a pytree of arrays; leaves whose first axis has length n are rows.
        deterministic: (params, data) -> dict of derived quantities.
        predictive: (key, params, data) -> dict of replicated observations.
        simulate: (key, data) -> (params, data of the same form), both drawn from the model; for `calibrate`.
        name: for reports; the likelihood's own by default.

    Raises:
        ValueError: as for `from_function`, and if the likelihood is not one number for each row.
    """
    space = Space(supports)
    least, most = _arity(log_prior, "log_prior")
    if least > 1 or most < 1:
        remedy = "numbers that the prior needs belong into its own constants"
        raise ValueError(requirement("log_prior", "take (params)", f"a function of {least} arguments", remedy))
    likelihood = _with_data(log_likelihood, "log_likelihood", data)
    if data is None or isinstance(likelihood, WithoutData):
        got = "no data" if data is None else "a likelihood of the parameters alone"
        raise ValueError(
            requirement("log_likelihood", "take (params, data), with data given", got, "use from_function")
        )
    return _build(
        space,
        PriorPlusLikelihood(log_prior, likelihood),
        data,
        log_prior=log_prior,
        log_likelihood=likelihood,
        deterministic=_with_data(deterministic, "deterministic", data),
        predictive=_with_data(predictive, "predictive", data, "key, params"),
        simulate=simulate,
        name=name or _function_name(log_likelihood),
    )
