"""Masked autoregressive maps, run both ways."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from thalweg._core import Array, Cost, Seed, Shape, check_positive_int, freeze, register
from thalweg.bijections._bijection import AbstractBijection
from thalweg.bijections._in_order import invert_in_order
from thalweg.bijections._networks import MaskedMLP
from thalweg.bijections._transformers import AbstractTransformer, sum_slopes

_ITERATE_LIMIT = 1e30
"""Iterates of the pushed score are clipped here: a wild intermediate guess must not overflow."""


@register
class Autoregressive(AbstractBijection):
    r"""$y_i = T(x_i; \theta_i(x_{1 \dots i-1}))$ for all i at once, the parameters from one masked network.

    Forward is one network evaluation. The inverse goes through the coordinates in order and evaluates each hidden unit
    once, as soon as what it reads is known: the arithmetic of one network evaluation, in d steps instead of one. Its
    derivative is implicit (one triangular solve). As it stands, drawing is fast (an inverse autoregressive flow, IAF);
    inverted, evaluating the density is fast (a masked autoregressive flow, MAF).

    Source: Kingma et al. 2016; Papamakarios et al. 2017.

    Args:
        size: d, the point's length.
        transformer: the map of each coordinate.
        context_size: length of the context the network also reads; None for no context.
        seed: an int or a JAX key, for the network's first weights.
        **network: width, depth and activation of the `MaskedMLP`.
    """

    transformer: AbstractTransformer
    conditioner: MaskedMLP
    in_shape: Shape = eqx.field(static=True)
    context_shape: Shape | None = eqx.field(static=True)
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "sequential"
    takes_batches: ClassVar[bool] = True

    def __init__(
        self,
        size: int,
        transformer: AbstractTransformer,
        *,
        context_size: int | None = None,
        seed: Seed = 0,
        **network: Any,
    ) -> None:
        size = check_positive_int("size", size)
        self.transformer = transformer
        self.conditioner = MaskedMLP(size, transformer.n_params, context_size=context_size or 0, seed=seed, **network)
        self.in_shape = (size,)
        self.context_shape = None if context_size is None else (context_size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        y, log_slope = self.transformer.forward_and_log_slope(x, self.conditioner(x, context))
        return y, sum_slopes(log_slope)

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Array, Array]:
        y, log_det = self._forward_and_log_det(x, context)
        frozen, x, context = freeze((self, x, context))

        def with_slopes(x: Array) -> tuple[Array, Array]:
            return frozen.transformer.forward_and_log_slope(x, frozen.conditioner(x, context))

        (_, log_slopes), pull = jax.vjp(with_slopes, x)
        zero, one = jnp.zeros_like(x), jnp.ones_like(x)
        right = score - pull((zero, one))[0]
        # J' is upper triangular: s <- (right - the rest of J' s) / diagonal on all coordinates at once, until nothing
        # moves: exact after at most d sweeps, usually after 10 to 20, each one pass back through the network
        tolerance = 2 * jnp.finfo(x.dtype).eps

        def unfinished(state: tuple[Array, Array, Array]) -> Array:
            step, _, moving = state
            return (step < self.in_shape[0]) & moving

        def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            step, s, _ = state
            new = s + (right - pull((s, zero))[0]) * jnp.exp(-log_slopes)
            new = jnp.clip(new, -_ITERATE_LIMIT, _ITERATE_LIMIT)
            return step + 1, new, jnp.any(jnp.abs(new - s) > tolerance * (1 + jnp.abs(new)))

        start = (jnp.zeros((), jnp.int32), right * jnp.exp(-log_slopes), jnp.array(True))
        return y, log_det, jax.lax.while_loop(unfinished, sweep, start)[1]

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Array]:
        def back(y: Array, params: Array) -> Array:
            return self.transformer.inverse_and_log_slope(y, params)[0]

        def residual(x: Array) -> Array:
            return self._forward_and_log_det(x, context)[0] - y

        def solve(_: Callable[[Array], Array], __: Array) -> Array:
            return invert_in_order(self.conditioner, back, y, context)

        def solve_tangent(tangent: Callable[[Array], Array], right: Array) -> Array:
            # one push a coordinate, all points of a batch at once: (of x, of y, batch)
            columns = right.reshape(len(right), -1)
            units = jnp.broadcast_to(jnp.eye(len(right), dtype=right.dtype)[..., None], (len(right), *columns.shape))
            slopes = jax.vmap(tangent)(units.reshape(-1, *right.shape)).reshape(units.shape)
            solved = solve_triangular(jnp.moveaxis(slopes, -1, 0), columns.T[..., None], trans=1)
            return solved[..., 0].T.reshape(right.shape)

        x = jax.lax.custom_root(residual, jax.lax.stop_gradient(y), solve, solve_tangent)
        return x, -self._forward_and_log_det(x, context)[1]
