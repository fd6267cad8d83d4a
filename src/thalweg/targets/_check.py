"""The look at a user's log density when a target is built."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import requirement
from thalweg.targets._data import leaves_with
from thalweg.targets._target import Target
from thalweg.targets._turns import calls_back, needs_turns

_LIBRARIES = tuple(str(Path(file).parent) for file in (jax.__file__, eqx.__file__, np.__file__, __file__))


def _where(error: Exception) -> str:
    """The user's own line that an error came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_LIBRARIES)]
    frames = [f for f in frames if "site-packages" not in f.filename] or frames
    return f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""


def raised(argument: str, error: Exception) -> str:
    """A user's function failed: what it raised, in one line, and where."""
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
    return f"`{argument}` raised {what}{_where(error)}"


def _names_there(target: Target, error: Exception) -> str:
    """For a name that was looked up in vain: the names there are."""
    if not isinstance(error, KeyError):
        return ""
    named = isinstance(target.data, Mapping) and len(target.data) > 0
    data = f"the data's {', '.join(map(str, target.data))}" if named else "no named data"
    return f"; there are the parameters {', '.join(target.names)}, and {data}"


def _abstractly(target: Target, function: Any) -> Any:
    """What a function of (params, data) returns, unchanged, with shapes in place of numbers."""
    seen = []

    def look(u: Any, data: Any) -> None:
        seen.append(function(target.space.constrain(u, data)[0], data))

    jax.eval_shape(look, jax.ShapeDtypeStruct((target.size,), jnp.result_type(float)), target.data)
    return seen[0]


def _call(target: Target, argument: str, function: Any) -> Any:
    """As `_abstractly`, with errors told.

    Raises:
        ValueError: from the user's error; one that only tracing causes is told as that.
    """
    try:
        return _abstractly(target, function)
    except Exception as error:
        try:  # a concrete look: does it work on plain numbers?
            with np.errstate(all="ignore"):
                function(target.constrain(jnp.zeros(target.size, jnp.result_type(float)))[0], target.data)
        except Exception as concrete:
            raise ValueError(raised(argument, concrete) + _names_there(target, concrete)) from concrete
        remedy = "use jax.numpy instead of numpy or math, and jnp.where or jax.lax.cond instead of if"
        raise ValueError(
            f"`{argument}` works on plain numbers but not under jax.jit; {remedy}: {raised(argument, error)}"
        ) from error


def _check_scalar(argument: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not isinstance(value, jax.Array | np.ndarray | np.generic | bool):
        got = "None" if value is None else f"a {type(value).__name__}"
        raise ValueError(
            requirement(argument, "return one number, a 0-d array", got, "return the sum of the log densities")
        )
    if np.shape(value) != ():
        got = f"an array of shape {np.shape(value)}"
        raise ValueError(requirement(argument, "return one number, a 0-d array", got, "sum it: jnp.sum(...)"))
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            requirement(argument, "return a float", f"dtype {dtype}", "it must be a log density, with gradients")
        )


def check_gradient(target: Target, argument: str) -> Target:
    """Raise one clear error where the gradient at a batch of points cannot be traced; compiles nothing.

    Returns:
        The target, which takes turns, or runs alone, where it needs to.

    Raises:
        ValueError: with what JAX, or the user's function, says of it.
    """
    points = jax.ShapeDtypeStruct((2, target.size), jnp.result_type(float))
    try:
        traced = jax.make_jaxpr(target.log_density)(jax.ShapeDtypeStruct((target.size,), points.dtype))
    except Exception as error:
        raise ValueError(raised(argument, error)) from error
    try:
        jax.eval_shape(jax.vmap(jax.value_and_grad(target.log_density)), points)
    except Exception as error:
        must = "have a gradient that jax.grad finds, at many points at once by jax.vmap"
        raise ValueError(f"`{argument}` must {must}; {raised(argument, error)}") from error
    if needs_turns(traced):
        return target.changed(takes_turns=True)
    return target.changed(runs_alone=True) if calls_back(traced) else target


def check_log_density(target: Target) -> Target:
    """Raise one clear error where a target cannot work: called once, when it is built; compiles nothing.

    Returns:
        The target, which takes turns where it needs to.

    Raises:
        ValueError: if the data hold NaN; if the log density raises, returns something else than one float; if the
            pointwise log-likelihood of a split target is not one number for each row; if `deterministic` or
            `predictive` does not return a dict.
    """
    if found := leaves_with(np.isnan, target.data):
        remedy = "drop or fill them in, or make them parameters; a mask needs numbers below it too"
        raise ValueError(requirement("data", "hold no NaN", f"NaN in {', '.join(found)}", remedy))
    prior = target.log_prior
    if prior is not None and target.is_split:
        _check_scalar("log_prior", _call(target, "log_prior", lambda params, _: prior(params)))
    else:
        _check_scalar("log_density", _call(target, "log_density", target.log_joint))
    target = check_gradient(target, "log_density")
    _check_likelihood(target)
    predictive = target.predictive
    if predictive is not None:
        key = jax.random.key(0)
        drawn = _call(target, "predictive", lambda params, data: predictive(key, params, data))
        if not isinstance(drawn, dict):
            raise ValueError(requirement("predictive", "return a dict of arrays", f"a {type(drawn).__name__}"))
    if target.deterministic is not None:
        derived = _call(target, "deterministic", target.deterministic)
        if not isinstance(derived, dict):
            raise ValueError(requirement("deterministic", "return a dict of arrays", f"a {type(derived).__name__}"))
        if both := sorted(set(derived) & set(target.names)):
            raise ValueError(requirement("deterministic", "use names that no parameter has", ", ".join(both)))
    return target


def _check_likelihood(target: Target) -> None:
    if target.log_likelihood is None:
        return
    terms = _call(target, "log_likelihood", target.log_likelihood)
    shapes = [np.shape(t) for t in jax.tree.leaves(terms)]
    if not shapes or (target.is_split and () in shapes):
        got = f"shapes {shapes}" if shapes else "None"
        raise ValueError(requirement("log_likelihood", "return one number for each row", got, "do not sum it"))
    if target.is_split:
        _ = target.n_rows  # raises where the parts differ in length
