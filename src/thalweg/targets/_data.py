"""Data at the door: arrays of the default precision, no text, no NaN, the same form again."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from thalweg._core import Array, requirement

_IN_DOUBLE = "turn on jax_enable_x64 (--float64), or give it another unit or origin"


def _is_leaf(x: Any) -> bool:
    return isinstance(x, list)


def leaf_name(path: tuple[Any, ...]) -> str:
    """A leaf as the user would write it: data['y'][0]."""
    return "data" + jax.tree_util.keystr(path)


def as_data(data: Any) -> Any:
    """`data` with every leaf an array: floats in the default precision, integers and bools kept.

    Args:
        data: a pytree of arrays, numbers and lists of numbers; a list is one array.

    Raises:
        ValueError: if a leaf is text, ragged, or an integer too large; its key is named.
    """
    return jax.tree_util.tree_map_with_path(_as_array, data, is_leaf=_is_leaf)


def _as_array(path: tuple[Any, ...], leaf: Any) -> Array:
    if isinstance(leaf, jax.Array):
        return leaf.astype(jnp.result_type(float)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    name = leaf_name(path)
    try:
        array = np.asarray(leaf)
    except ValueError as error:
        raise ValueError(
            requirement(name, "be an array", "lists of different lengths", "pad them, or pass them apart")
        ) from error
    if array.dtype.kind not in "biufc":
        got = f"{type(leaf).__name__} of dtype {array.dtype}"
        raise ValueError(requirement(name, "be numeric", got, "encode text as integers, or leave it out"))
    if array.dtype.kind in "fc":
        with np.errstate(over="ignore"):
            kept = array.astype(jnp.result_type(float) if array.dtype.kind == "f" else jnp.result_type(complex))
        too_large = np.isinf(kept) & np.isfinite(array)
        if too_large.any():
            raise ValueError(requirement(name, f"fit into {kept.dtype}", array[too_large][0], _IN_DOUBLE))
        return jnp.asarray(kept)
    kept = jnp.asarray(array)
    if array.dtype.kind in "iu" and array.size:
        furthest = max(array.min(), array.max(), key=lambda number: abs(int(number)))
        if not jnp.iinfo(kept.dtype).min <= furthest <= jnp.iinfo(kept.dtype).max:
            raise ValueError(requirement(name, f"fit into {kept.dtype}", furthest, _IN_DOUBLE))
    return kept


def digest(data: Any) -> str:
    """A fingerprint of the numbers, in whatever precision they are held."""
    told = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(data, is_leaf=_is_leaf):
        array = np.asarray(leaf)
        array = array.astype({"f": np.float32, "c": np.complex64, "b": np.int64}.get(array.dtype.kind, np.int64))
        told.update(f"{leaf_name(path)} {array.shape} ".encode())
        told.update(array.tobytes())
    return told.hexdigest()


class Original:
    """Data as they were given, for a later change of precision; a copy where single precision would cut them.

    A static field of a target; it compares equal to any other, since no traced function reads it: other numbers must
    not compile anew.

    Attributes:
        data: as given.
        in_double: the target in float64, once somebody has asked for it.
    """

    def __init__(self, given: Any, kept: Any) -> None:
        self.in_double: Any = None

        def keep(leaf: Any, array: Array) -> Any:
            given_wide = isinstance(leaf, list | float) or getattr(leaf, "dtype", None) == np.float64
            return np.array(leaf) if given_wide and array.dtype == jnp.float32 else array

        self.data = jax.tree.map(keep, given, kept, is_leaf=_is_leaf)

    def __eq__(self, other: object) -> bool:
        """Always, among its kind."""
        return isinstance(other, Original)

    def __hash__(self) -> int:
        """One for all."""
        return 0


def leaves_with(test: Callable[[np.ndarray], np.ndarray], data: Any) -> list[str]:
    """The leaves with entries that pass the test, and how many; nothing for data that are being traced."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if not isinstance(leaf, Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact):
            count = int(test(np.asarray(leaf)).sum())
            if count:
                found.append(f"{leaf_name(path)} ({count} of {leaf.size})")
    return found


def check_same_form(data: Any, reference: Any) -> None:
    """Raise unless `data` has the structure, shapes and dtypes of `reference`.

    Raises:
        ValueError: naming the leaf that differs.
    """
    new, old = (dict(jax.tree_util.tree_leaves_with_path(d)) for d in (data, reference))
    for path in [*old, *(p for p in new if p not in old)]:
        if path not in new or path not in old:
            got = "none" if path not in new else "one that the target's data lack"
            must = "be there, as in the target's data" if path not in new else "be left out"
            raise ValueError(requirement(leaf_name(path), must, got))
        if (new[path].shape, new[path].dtype) != (old[path].shape, old[path].dtype):
            must = f"have shape {old[path].shape} and dtype {old[path].dtype}"
            got = f"{new[path].shape} and {new[path].dtype}"
            raise ValueError(requirement(leaf_name(path), must, got, "build a new target"))
