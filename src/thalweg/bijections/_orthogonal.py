"""Orthogonal maps: a fixed matrix, and trainable products of reflections."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import (
    Array,
    Cost,
    Fixed,
    Scalar,
    Seed,
    Shape,
    check_positive_int,
    from_numpy,
    numpy_rng,
    register,
    requirement,
)
from thalweg.bijections._bijection import AbstractBijection


@register
class Orthogonal(AbstractBijection):
    """y = Q x with a fixed orthogonal matrix; log-determinant 0. What NICE-orth mixes coordinates by.

    Source: Rezende and Mohamed 2015, section 6 (NICE-orth).

    Args:
        matrix: Q, (d, d).

    Raises:
        ValueError: if Q'Q is not the identity to 1e-5.
    """

    matrix: Fixed
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, matrix: Any) -> None:
        q = np.asarray(matrix, float)
        if q.ndim != 2 or q.shape[0] != q.shape[1] or not np.allclose(q.T @ q, np.eye(len(q)), atol=1e-5):
            raise ValueError(requirement("matrix", "be square and orthogonal", f"shape {q.shape}"))
        self.matrix, self.in_shape = Fixed(from_numpy(q)), (len(q),)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        return self.matrix.value @ x, jnp.zeros((), x.dtype)

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Scalar, Array]:
        return self.matrix.value @ x, jnp.zeros((), x.dtype), self.matrix.value @ score

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        return self.matrix.value.T @ y, jnp.zeros((), y.dtype)


def random_orthogonal(size: int, seed: Seed = 0) -> Orthogonal:
    """A fixed orthogonal matrix drawn from the Haar measure (Stewart 1980)."""
    q, r = np.linalg.qr(numpy_rng(seed).standard_normal((size, size)))
    return Orthogonal(q * np.sign(np.diagonal(r)))


def reflect(x: Array, vectors: Array, *, backwards: bool = False) -> Array:
    """X - 2 v (v'x) / (v'v) for every row v in turn; backwards undoes it."""

    def step(x: Array, v: Array) -> tuple[Array, None]:
        # the floor only matters at v = 0, where it makes the reflection the identity
        return x - v * (2 * (v @ x) / jnp.maximum(v @ v, jnp.finfo(v.dtype).tiny)), None

    return jax.lax.scan(step, x, vectors, reverse=backwards)[0]


def pairs_of_reflections(size: int, pairs: int, seed: Seed) -> Array:
    """(2 pairs, size) directions, each drawn at random and given twice: together they are the identity."""
    return from_numpy(np.repeat(numpy_rng(seed).standard_normal((pairs, size)), 2, axis=0))


@register
class Householder(AbstractBijection):
    r"""$y = H_{2k} \cdots H_1 x$, $H = I - 2 v v^\top / v^\top v$: a trainable rotation; log-determinant 0.

    The reflections come in pairs that cancel at the start, so that this is the identity there (an even number of them
    makes a rotation; d of them reach any). Source: Tomczak and Welling 2016.

    Args:
        size: d.
        pairs: k; None for enough to reach any rotation.
        seed: an int or a JAX key, for the first directions.
    """

    vectors: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, size: int, *, pairs: int | None = None, seed: Seed = 0) -> None:
        size = check_positive_int("size", size)
        pairs = (size + 1) // 2 if pairs is None else check_positive_int("pairs", pairs)
        self.vectors, self.in_shape = pairs_of_reflections(size, pairs, seed), (size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        return reflect(x, self.vectors), jnp.zeros((), x.dtype)

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Scalar, Array]:
        frozen = jax.lax.stop_gradient(self.vectors)
        return reflect(x, self.vectors), jnp.zeros((), x.dtype), reflect(score, frozen)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        return reflect(y, self.vectors, backwards=True), jnp.zeros((), y.dtype)
