"""Sylvester flows: planar flows of many directions at once, with the inverse that the paper leaves out."""

import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from thalweg._core import (
    Array,
    Cost,
    Scalar,
    Seed,
    Shape,
    check_choice,
    check_positive_int,
    freeze,
    from_numpy,
    increasing_root,
    numpy_rng,
    register,
    requirement,
)
from thalweg.bijections._bijection import AbstractBijection
from thalweg.bijections._orthogonal import pairs_of_reflections, reflect

BASES = ("orthogonal", "householder", "triangular")
_LARGEST = 0.999
"""Of the diagonals' size: keeps every slope at least 0.001."""


@register
class Sylvester(AbstractBijection):
    r"""$f(z) = z + Q R \tanh(\tilde R Q^\top z + b)$, Q of m orthonormal columns, R and R tilde upper triangular.

    $\log|\det| = \sum_i \log(1 + R_{ii} \tilde R_{ii} (1 - \tanh^2))$; the diagonals are 0.999 tanh of free numbers,
    which keeps their product above -1. R = 0 at the start, so this is the identity there. With a = Q'z the inverse is
    m increasing scalar roots, from the last coordinate of a to the first, whose derivative is one triangular solve.

    Source: van den Berg et al. 2018. Q is by QR where the paper iterates.

    Args:
        size: d, the point's length.
        basis: what Q is: "orthogonal" (m columns by QR of a free matrix), "householder" (d columns, a product of
            reflections) or "triangular" (the identity: chain permutations between layers).
        columns: m <= d, for the orthogonal basis; None for min(d, 8).
        reflections: pairs of reflections, for the householder basis; None for 4.
        seed: an int or a JAX key, for the first Q and R tilde.

    Raises:
        ValueError: for an unknown basis, or more columns than d.
    """

    q: Array
    upper: Array
    upper_tilde: Array
    bias: Array
    basis: str = eqx.field(static=True)
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "root"

    def __init__(
        self,
        size: int,
        basis: str = "orthogonal",
        *,
        columns: int | None = None,
        reflections: int | None = None,
        seed: Seed = 0,
    ) -> None:
        size = check_positive_int("size", size)
        check_choice("basis", basis, BASES)
        m = min(size, 8) if columns is None else check_positive_int("columns", columns)
        m = m if basis == "orthogonal" else size
        if m > size:
            raise ValueError(requirement("columns", f"be at most {size}", m))
        rng = numpy_rng(seed)
        if basis == "orthogonal":
            self.q = from_numpy(rng.standard_normal((size, m)))
        elif basis == "householder":
            self.q = pairs_of_reflections(size, 4 if reflections is None else reflections, rng)
        else:
            self.q = from_numpy(np.zeros((0, size)))
        self.upper = from_numpy(np.zeros((m, m)))
        self.upper_tilde = from_numpy(rng.standard_normal((m, m)) / math.sqrt(m))
        self.bias = from_numpy(np.zeros(m))
        self.basis, self.in_shape = basis, (size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _into(self) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        """(z -> Q'z, a -> Q a)."""
        if self.basis == "orthogonal":
            q = jnp.linalg.qr(self.q)[0]
            return lambda z: q.T @ z, lambda a: q @ a
        return lambda z: reflect(z, self.q, backwards=True), lambda a: reflect(a, self.q)

    def _factors(self) -> tuple[Array, Array]:
        """(R, R tilde)."""

        def factor(free: Array) -> Array:
            return jnp.triu(free, 1) + jnp.diag(_LARGEST * jnp.tanh(jnp.diagonal(free)))

        return factor(self.upper), factor(self.upper_tilde)

    def _inner(self, a: Array) -> tuple[Array, Array]:
        """(R h, log-slopes) at a = Q'z, h = tanh(R tilde a + b)."""
        upper, upper_tilde = self._factors()
        h = jnp.tanh(upper_tilde @ a + self.bias)
        return upper @ h, jnp.log1p(jnp.diagonal(upper) * jnp.diagonal(upper_tilde) * (1 - h**2))

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        to, back = self._into()
        move, log_slopes = self._inner(to(x))
        return x + back(move), log_slopes.sum()

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Scalar, Array]:
        y, log_det = self._forward_and_log_det(x, context)
        frozen, x = freeze((self, x))
        to, back = frozen._into()
        upper, upper_tilde = frozen._factors()
        a = to(x)
        # the log-determinant moves along Q alone, and so does J' = I + (Q R~' D)(Q R)': Woodbury, no root is needed
        change, rest = jax.grad(lambda a: frozen._inner(a)[1].sum())(a), to(score)
        slope = 1 - jnp.tanh(upper_tilde @ a + frozen.bias) ** 2
        rest = rest - change
        lifted = solve_triangular(
            jnp.eye(len(a), dtype=a.dtype) + slope[:, None] * (upper_tilde @ upper), upper.T @ rest, trans=1
        )
        return y, log_det, score - back(change) - back(upper_tilde.T @ (slope * lifted))

    def _solve(self, right: Array) -> Array:
        """The a with a + R tanh(R tilde a + b) = right, from the last coordinate to the first."""
        upper, upper_tilde = self._factors()

        def step(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            a, h = state
            i = len(right) - 1 - k
            # what is not solved yet is 0 in a and h
            rest, shift = right[i] - upper[i] @ h, self.bias[i] + upper_tilde[i] @ a
            r, r_tilde = upper[i, i], upper_tilde[i, i]
            reach = 1.01 * jnp.abs(r)
            root = increasing_root(lambda s: s + r * jnp.tanh(r_tilde * s + shift) - rest, rest - reach, rest + reach)
            return a.at[i].set(root), h.at[i].set(jnp.tanh(r_tilde * root + shift))

        zero = jnp.zeros_like(right)
        return jax.lax.fori_loop(0, len(right), step, (zero, zero))[0]

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        to, back = self._into()
        right = to(y)

        def residual(a: Array) -> Array:
            return a + self._inner(a)[0] - right

        def solve_tangent(tangent: Callable[[Array], Array], out: Array) -> Array:
            return solve_triangular(jax.jacfwd(tangent)(jnp.zeros_like(out)), out)

        a = jax.lax.custom_root(
            residual, jax.lax.stop_gradient(right), lambda _, start: self._solve(right), solve_tangent
        )
        move, log_slopes = self._inner(a)
        return y - back(move), -log_slopes.sum()
