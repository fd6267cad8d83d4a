"""Float precision without touching the process: a context, entered by whoever owns double-precision numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
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
    with jax.enable_x64(dtype == "float64"):
        yield
