"""Roots of monotone scalar functions, with the implicit derivative."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from thalweg._core._types import Scalar


def increasing_root(function: Callable[[Scalar], Scalar], low: Scalar, high: Scalar, max_steps: int = 200) -> Scalar:
    r"""The root of an increasing, differentiable function between `low` and `high`.

    Newton's method that falls back to bisection whenever a step leaves the bracket or does not halve it; stops when
    the bracket or the step is down to rounding. The derivative with respect to whatever `function` closes over is the
    implicit one, $-(\partial_x f)^{-1} \partial_\theta f$, in forward and reverse mode and of any order.

    Args:
        function: increasing; one scalar to one scalar.
        low: a point with function(low) <= 0.
        high: a point with function(high) >= 0.
        max_steps: an upper bound on the number of steps; about 6 are usual.

    Returns:
        The root, a scalar.
    """

    def solve(f: Callable[[Scalar], Scalar], start: Scalar) -> Scalar:
        epsilon = jnp.finfo(start.dtype).eps

        def unfinished(state: tuple) -> jax.Array:
            step, a, b, _, moved = state
            tolerance = epsilon * (1 + jnp.abs(a) + jnp.abs(b))
            return (step < max_steps) & (b - a > tolerance) & (moved > tolerance / 4)

        def advance(state: tuple) -> tuple:
            step, a, b, x, moved = state
            value, slope = jax.value_and_grad(f)(x)
            a, b = jnp.where(value <= 0, x, a), jnp.where(value >= 0, x, b)
            newton = x - value / jnp.where(slope > 0, slope, 1)
            inside = (newton > a) & (newton < b) & (jnp.abs(newton - x) < 0.5 * moved)
            new = jnp.where(value == 0, x, jnp.where(inside, newton, 0.5 * (a + b)))
            return step + 1, a, b, new, jnp.abs(new - x)

        zero = jnp.zeros((), jnp.int32)
        a, b = jax.lax.stop_gradient((low, high))
        state = (zero, a, b, start, jnp.asarray(jnp.inf, start.dtype))
        return jax.lax.while_loop(unfinished, advance, state)[3]

    start = jax.lax.stop_gradient(0.5 * low + 0.5 * high)
    return jax.lax.custom_root(function, start, solve, lambda tangent, y: y / tangent(jnp.ones_like(y)))
