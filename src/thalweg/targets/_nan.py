"""Where the first NaN comes from: a function's equations, each with its result."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util

from thalweg._core import Array


def _has_nan(values: list[Any]) -> bool:
    floats = [v for v in values if jnp.issubdtype(v.dtype, jnp.inexact)]
    return any(bool(np.isnan(np.asarray(v)).any()) for v in floats)


def first_nan(function: Callable[..., Any], params: Mapping[str, Array], data: Any) -> tuple[str, list[str]] | None:
    """(operation and line, names of the parameters that it depends on) of the first NaN that is made, or None.

    Args:
        function: of (params, data).
        params: name -> array.
        data: a pytree of arrays.
    """
    closed = jax.make_jaxpr(function)(params, data)
    inputs = jax.tree.leaves((params, data))
    jaxpr = closed.jaxpr
    outvars = list(dict.fromkeys(v for e in jaxpr.eqns for v in e.outvars))
    every = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr.replace(outvars=outvars), closed.consts))
    value = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *inputs], strict=True))
    value |= dict(zip(outvars, every(*inputs), strict=True))
    # a dict is flattened in the order of its keys, and the parameters come first
    depends = {v: {n} for n, v in zip(sorted(params), jaxpr.invars[: len(params)], strict=True)}
    for equation in jaxpr.eqns:
        read = [v for v in equation.invars if not isinstance(v, core.Literal)]
        names = set().union(*(depends.get(v, set()) for v in read))
        if _has_nan([value[v] for v in equation.outvars]) and not _has_nan([value[v] for v in read]):
            where = source_info_util.summarize(equation.source_info).split(" ")[0].split("/")[-1]
            return f"{equation.primitive.name} at {where}", [n for n in params if n in names]
        depends |= dict.fromkeys(equation.outvars, names)
    return None
