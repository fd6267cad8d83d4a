"""Jitted as `equinox.filter_jit` does it, with what XLA must be told to use."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import equinox as eqx
import jax

_Out = TypeVar("_Out")

OPTIONS = {"xla_cpu_prefer_vector_width": 512}
"""XLA's code for CPUs keeps to half of an AVX-512 register unless told: 3 to 6 % of a flow's step. Other devices pass
over it."""


def wide_jit(function: Callable[..., _Out]) -> Callable[..., _Out]:
    """`equinox.filter_jit` with `OPTIONS`, or without where this XLA does not know them."""
    settings: dict[str, Any] = {"compiler_options": OPTIONS}
    jitted = [eqx.filter_jit(function, **settings)]

    @wraps(function)
    def call(*args: Any) -> _Out:
        try:
            return jitted[0](*args)
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            jitted[0] = eqx.filter_jit(function)
            return jitted[0](*args)

    return call
