"""Log densities with matrix factorisations, which a batch of points must take one after the other on a CPU.

JAX (0.10) factorises a batch of matrices by handing it to XLA's pool of threads, from one of the pool's own threads,
which then waits: two such calls that do not depend on each other, on two cores, wait for ever. One matrix at a time is
factorised in place, and in no more time: a batch of 128 of 20 x 20 takes as long, of 100 x 100 at most as long.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import ClosedJaxpr, Jaxpr

from thalweg._core import Array, Scalar

_WAITING = frozenset(
    {"cholesky", "triangular_solve", "lu", "geqrf", "geqp3", "householder_product", "eigh", "eig", "svd", "schur"}
    | {"hessenberg", "tridiagonal", "tridiagonal_solve", "qr"}
)
"""JAX's names of what takes a batch to the pool."""
_TO_THE_POOL, _FEW_TO_THE_POOL = 200, 20
"""Work on one point's matrices, n^2 m for n x n and n x m, of which the pool takes a batch of 1,000 points, or of
10,000: a hundred microseconds or so in all are done in place."""


def needs_turns(jaxpr: ClosedJaxpr) -> bool:
    """Whether a traced function factorises matrices that are large enough for the pool.

    One factorisation and its solve do not wait for each other, but they may for those of another program that runs
    beside them. Of smaller matrices a batch is sooner taken as it is.
    """
    found = [_work(e) for e in _equations(jaxpr.jaxpr) if e.primitive.name in _WAITING]
    names = [name for name, _ in found]
    several = len(names) > 2 or len(set(names)) < len(names)
    return max((work for _, work in found), default=0) >= (_FEW_TO_THE_POOL if several else _TO_THE_POOL)


def calls_back(jaxpr: ClosedJaxpr) -> bool:
    """Whether a traced function calls back into Python.

    The callback waits for its arguments to be copied by the pool that it runs in: two at once, on two cores, for ever.
    """
    return any("callback" in e.primitive.name for e in _equations(jaxpr.jaxpr))


def _work(equation: Any) -> tuple[str, int]:
    """(what factorises, how much it is)."""
    shapes = [x.aval.shape for x in equation.invars]
    return equation.primitive.name, max(math.prod(shape) for shape in shapes) * shapes[0][-1]


def _equations(jaxpr: Jaxpr) -> Any:
    """All of them, those of inner functions too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


def in_turns(function: Callable[[Array, Any], Scalar]) -> Callable[[Array, Any], Scalar]:
    """The same function of (u, rest), whose batches by `jax.vmap`, and those of its gradient, run one by one.

    Where `rest` is differentiated too, that derivative is taken in batches.
    """
    if jax.default_backend() != "cpu":
        return function
    value, both = _one_by_one(function), _one_by_one(jax.value_and_grad(function))

    @jax.custom_jvp
    def taken(u: Array, rest: Any) -> Scalar:
        return value(u, rest)

    def rule(primals: Any, tangents: Any) -> tuple[Scalar, Scalar]:
        (u, rest), (u_dot, rest_dot) = primals, tangents
        if not all(_is_zero(t) for t in jax.tree.leaves(rest_dot, is_leaf=_is_zero)):
            smooth, fixed = eqx.partition(rest, lambda x: jnp.issubdtype(jnp.result_type(x), jnp.inexact))
            dots = jax.tree.map(
                lambda x, t: None if x is None else jnp.zeros_like(x) if _is_zero(t) else t,
                *(smooth, rest_dot),
                is_leaf=lambda x: x is None or _is_zero(x),
            )
            u_dot = jnp.zeros_like(u) if _is_zero(u_dot) else u_dot
            return jax.jvp(lambda u, smooth: function(u, eqx.combine(smooth, fixed)), (u, smooth), (u_dot, dots))
        if _is_zero(u_dot):
            out = value(u, rest)
            return out, jnp.zeros_like(out)
        out, slope = both(u, rest)
        return out, slope @ u_dot

    taken.defjvp(rule, symbolic_zeros=True)
    return taken


def _one_by_one(function: Callable[[Array, Any], Any]) -> Callable[[Array, Any], Any]:
    def call(u: Array, rest: Any) -> Any:
        leaves, tree = jax.tree.flatten(rest)

        def flat(u: Array, *leaves: Array) -> Any:
            return function(u, tree.unflatten(leaves))

        called = custom_vmap(flat)

        @called.def_vmap
        def _(_: int, are_batched: Any, *arguments: Any) -> tuple[Any, Any]:
            batched, shared = eqx.partition(list(arguments), [bool(b) for b in are_batched])
            each = any(are_batched)
            out = jax.lax.map(lambda one: flat(*eqx.combine(one, shared)), batched) if each else flat(*arguments)
            return out, jax.tree.map(lambda _: each, out)

        return called(u, *leaves)

    return call


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
