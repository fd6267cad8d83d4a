"""Pytrees: what is trainable, a module as a skeleton plus a flat vector, stacking of equal layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import numpy as np

from thalweg._core._checks import check_shape, requirement
from thalweg._core._serialisation import register
from thalweg._core._types import Array, Float, PyTree

T = TypeVar("T")


@register
class Fixed(eqx.Module):
    """Numbers of a module that no optimiser touches: a leaf that `trainable` passes over.

    Attributes:
        value: the array.
    """

    value: Array


def _is_fixed(x: Any) -> bool:
    return isinstance(x, Fixed)


def trainable(tree: Any) -> Any:
    """A tree of bools: True at floating-point arrays that are not inside a `Fixed`."""
    return jax.tree.map(lambda x: not _is_fixed(x) and eqx.is_inexact_array(x), tree, is_leaf=_is_fixed)


def partition_trainable(tree: T) -> tuple[T, T]:
    """Split into (trainable arrays, everything else); `eqx.combine` puts them together again."""
    return eqx.partition(tree, trainable(tree), is_leaf=_is_fixed)


@register
class Skeleton(eqx.Module, Generic[T]):
    """A module whose trainable numbers come from outside, as one flat vector.

    `skeleton(v)` is the module with v added to its initial numbers, so that the zero vector is the module as it was
    built (for a flow: the identity at start). A conditioner, a hypernetwork and an optimiser all drive the same object.

    Attributes:
        size: the length of the vector.
    """

    initial: Any
    rest: Any
    size: int = eqx.field(static=True)

    def __init__(self, module: T) -> None:
        """Take `module` apart."""
        initial, self.rest = partition_trainable(module)
        self.initial = jax.tree.map(Fixed, initial)
        self.size = sum(math.prod(np.shape(x)) for x in jax.tree.leaves(initial))

    def __call__(self, vector: Float[Array, " size"]) -> T:
        """The module at initial + `vector`.

        Raises:
            ValueError: if the vector's length is not `size`.
        """
        check_shape("vector", vector, (self.size,))
        return self._put_together(vector, lambda initial, moved: initial + moved)

    def on_host(self, vector: Any) -> T:
        """The same by NumPy, outside jit: it compiles nothing.

        Raises:
            ValueError: if the vector's length is not `size`.
        """
        check_shape("vector", vector, (self.size,))
        return self._put_together(
            np.asarray(vector), lambda initial, moved: jax.device_put(np.asarray(initial) + moved)
        )

    def _put_together(self, vector: Any, add: Callable[[Array, Any], Array]) -> T:
        leaves, structure = jax.tree.flatten(self.initial, is_leaf=_is_fixed)
        if not leaves:  # nothing is trainable
            return eqx.combine(self.initial, self.rest)
        sizes = [math.prod(np.shape(x.value)) for x in leaves]
        # the derivative of a split is one concatenation, that of slices a sum of padded vectors
        on_host = isinstance(vector, np.ndarray)
        parts = np.split(vector, np.cumsum(sizes)[:-1]) if on_host else jax.lax.split(vector, sizes)
        moved = [
            add(x.value, p.reshape(x.value.shape).astype(x.value.dtype)) for x, p in zip(leaves, parts, strict=True)
        ]
        return eqx.combine(jax.tree.unflatten(structure, moved), self.rest)


def stack_modules(modules: Sequence[T]) -> T:
    """One module whose arrays have a leading axis over `modules`, ready for a scan; compiles nothing.

    Raises:
        ValueError: if the modules differ in structure, static fields or shapes.
    """
    if not modules:
        raise ValueError(requirement("layers", "have at least one element", "none"))
    arrays = [eqx.filter(m, eqx.is_array) for m in modules]
    statics = [eqx.filter(m, eqx.is_array, inverse=True) for m in modules]
    shapes = [[(np.shape(x), x.dtype) for x in jax.tree.leaves(a)] for a in arrays]
    alike = all(jax.tree.structure(a) == jax.tree.structure(arrays[0]) for a in arrays) and all(
        eqx.tree_equal(s, statics[0]) is True for s in statics
    )
    if not alike or any(s != shapes[0] for s in shapes):
        raise ValueError(requirement("layers", "all have the same structure and shapes", "different ones", "use Chain"))
    stacked = jax.tree.map(lambda *xs: jax.device_put(np.stack([np.asarray(x) for x in xs])), *arrays)
    return eqx.combine(stacked, statics[0])


def freeze(tree: PyTree) -> PyTree:
    """The tree, no gradient through its arrays; what is no array (an activation, a number) stays as it is."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)
