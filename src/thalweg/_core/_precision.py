"""Float precision without touching the process: a context, entered by whoever owns double-precision numbers."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core._checks import requirement


def resolve_dtype(dtype: Any = None) -> str:
    """The name float32 or float64: what `dtype` says, or for None what JAX now gives (float32 unless the user set x64).

    Raises:
        ValueError: if `dtype` is neither.
    """
    if dtype is None:
        return jnp.result_type(float).name
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = None
    if name not in ("float32", "float64"):
        raise ValueError(requirement("dtype", "be float32 or float64", repr(dtype)))
    return name


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Inside, floats default to `dtype`; the setting of the process comes back on leaving."""
    _keep_constants_apart()
    with jax.enable_x64(dtype == "float64"):
        yield


@functools.cache
def _keep_constants_apart() -> None:
    """Have JAX keep the form that it gives a function's NumPy constants by precision, not by their identity alone.

    JAX 0.10 keeps one form of each array: a float64 program of a function that was compiled in float32 before gets the
    float32 constants, and does not compile. There is no public way around it; where JAX is made otherwise, it is left
    as it is.
    """
    try:
        handlers = import_module("jax._src.dtypes").canonicalize_value_handlers
        constant = import_module("jax._src.literals").TypedNdArray
        cached = import_module("jax._src.lib").weakref_lru_cache.weak_key_weak_value_cache
    except (ImportError, AttributeError):
        return
    forms: dict[np.dtype[Any], Any] = {}

    def canonical(array: np.ndarray) -> Any:
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
        if dtype not in forms:
            forms[dtype] = cached(lambda x: constant(np.asarray(x, dtype)))
        return forms[dtype](array)

    handlers[np.ndarray] = canonical
