"""Couplings: a part of the point, through a network, drives the map of the rest."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._core import Array, Cost, Seed, Shape, check_positive_int, register, requirement
from thalweg.bijections._bijection import AbstractBijection
from thalweg.bijections._networks import MLP, join_context
from thalweg.bijections._transformers import AbstractTransformer, sum_slopes


@register
class Coupling(AbstractBijection):
    """The first part of a point is kept and drives, through a network, the map of the second part; or vice versa.

    With an additive transformer this is NICE's layer, with an affine one RealNVP's, with a spline a neural spline
    coupling. A point of one coordinate is mapped by trainable constants. Both directions cost one network evaluation.

    Source: Dinh et al. 2015, 2017; Durkan et al. 2019.

    Args:
        size: d, the point's length.
        transformer: the map of each coordinate.
        swap: keep the second part and map the first.
        first: the length of the first part; half of d by default.
        context_size: length of the context the network also reads; None for no context.
        seed: an int or a JAX key, for the network's first weights.
        **network: width, depth and activation of the `MLP`.
    """

    transformer: AbstractTransformer
    conditioner: MLP
    in_shape: Shape = eqx.field(static=True)
    context_shape: Shape | None = eqx.field(static=True)
    swap: bool = eqx.field(static=True)
    first: int = eqx.field(static=True)
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"
    takes_batches: ClassVar[bool] = True

    def __init__(
        self,
        size: int,
        transformer: AbstractTransformer,
        *,
        swap: bool = False,
        first: int | None = None,
        context_size: int | None = None,
        seed: Seed = 0,
        **network: Any,
    ) -> None:
        size = check_positive_int("size", size)
        self.first = size // 2 if first is None else first
        if not 0 <= self.first <= size:
            raise ValueError(requirement("first", f"be from 0 to size = {size}", first))
        kept = size - self.first if swap else self.first
        self.transformer = transformer
        self.conditioner = MLP(kept + (context_size or 0), (size - kept) * transformer.n_params, seed=seed, **network)
        self.in_shape, self.swap = (size,), swap
        self.context_shape = None if context_size is None else (context_size,)

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _split(self, point: Array) -> tuple[Array, Array]:
        first, second = point[: self.first], point[self.first :]
        return (second, first) if self.swap else (first, second)

    def _join(self, kept: Array, moved: Array) -> Array:
        return jnp.concatenate([moved, kept] if self.swap else [kept, moved])

    def _params(self, kept: Array, context: Array | None) -> Array:
        params = self.conditioner(join_context(kept, context))
        return params.reshape(self.transformer.n_params, self.in_shape[0] - kept.shape[0], *kept.shape[1:])

    def _run(self, point: Array, context: Array | None, *, inverse: bool) -> tuple[Array, Array]:
        kept, moved = self._split(point)
        params = self._params(kept, context)
        method = self.transformer.inverse_and_log_slope if inverse else self.transformer.forward_and_log_slope
        moved, log_slope = method(moved, params)
        return self._join(kept, moved), sum_slopes(log_slope)

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Array, Array]:
        kept, moved = self._split(x)
        kept_score, moved_score = self._split(score)
        params, pull_network = jax.vjp(lambda seen: self._params(seen, context), kept)
        one = jnp.ones_like(moved)
        # d log-slope / dx by a push, so that a single pull through the map's parameters is enough
        _, (_, moved_change) = jax.jvp(lambda m: self.transformer.forward_and_log_slope(m, params), (moved,), (one,))
        (moved, log_slope), pull = jax.vjp(self.transformer.forward_and_log_slope, moved, params)
        moved_score = (moved_score - moved_change) * jnp.exp(-log_slope)
        (change,) = pull_network(pull((moved_score, one))[1])
        score = jax.lax.stop_gradient(self._join(kept_score - change, moved_score))
        return self._join(kept, moved), sum_slopes(log_slope), score

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self._run(x, context, inverse=False)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self._run(y, context, inverse=True)
