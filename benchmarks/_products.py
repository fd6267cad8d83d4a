"""The floor under a step: the matrix products of its conditioners alone, in the same shapes and the same order."""

from collections.abc import Sequence
from itertools import pairwise

from benchmarks._workers import Side


def products_alone(sizes: Sequence[int], points: int, layers: int, *, backward: bool = True, pulls: int = 0) -> Side:
    """The products of `layers` networks at `points` points: one repetition is a step's worth.

    Each product eats what the one before gave, so that none can be left out or moved; the numbers are zeros, which a
    processor multiplies as fast as others.

    Args:
        sizes: of the network's input, hidden layers and output.
        points: columns of every product.
        layers: networks one after another.
        backward: also the products of reverse mode, with respect to weights and inputs: three times those of forward.
        pulls: further pulls through the network with respect to its input (a path gradient has one).
    """
    import jax
    import jax.numpy as jnp

    def network(_, carry, others):
        x, weights = carry
        seen = [x]
        for w in weights:
            seen.append(w @ seen[-1])
        g, moved = seen[-1], []
        if not backward:
            return g[: sizes[0]] if sizes[-1] >= sizes[0] else jnp.tile(g, (sizes[0], 1))[: sizes[0]], weights
        for w, h in zip(weights[::-1], seen[-2::-1], strict=True):
            moved.append(g @ h.T)
            g = w.T @ g
        for other in others:
            for w in weights[::-1]:
                other = w.T @ other
            g = g + other
        return g, tuple(moved[::-1])

    @jax.jit
    def loop(n, carry, others):
        return jax.lax.fori_loop(0, n * layers, lambda i, c: network(i, c, others), carry)

    weights = tuple(jnp.zeros((o, i)) for i, o in pairwise(sizes))
    carry = (jnp.zeros((sizes[0], points)), weights)
    others = tuple(jnp.zeros((sizes[-1], points)) for _ in range(pulls))
    times = (3 if backward else 1) + pulls
    multiply_adds = times * layers * points * sum(o * i for i, o in pairwise(sizes))

    def run(n):
        jax.block_until_ready(loop(n, carry, others))

    return Side(run, {"million multiply-adds": multiply_adds / 1e6})
