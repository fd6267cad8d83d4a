"""A network drives another bijection's parameters: one vector a datum."""

from typing import Any

import equinox as eqx

from thalweg._core import Array, Cost, Scalar, Seed, Shape, Skeleton, register, requirement
from thalweg.bijections._bijection import AbstractBijection
from thalweg.bijections._networks import MLP


@register
class Hyper(AbstractBijection):
    """A bijection whose every trainable number is read off a context by a network: a flow per datum.

    The network's output is zero at the start, so this starts as the bijection given, for every context. Under vmap over
    contexts, each datum has its own flow. Source: the amortised flows of Rezende and Mohamed 2015, section 4.

    Args:
        bijection: the map to drive; it must not take a context itself.
        context_size: length of the context.
        seed: an int or a JAX key, for the network's first weights.
        **network: width, depth and activation of the `MLP`.

    Raises:
        ValueError: if the bijection takes a context.
    """

    skeleton: Skeleton
    network: MLP
    in_shape: Shape = eqx.field(static=True)
    out_shape: Shape = eqx.field(static=True)
    context_shape: Shape = eqx.field(static=True)
    forward_cost: Cost = eqx.field(static=True)
    inverse_cost: Cost = eqx.field(static=True)

    def __init__(self, bijection: AbstractBijection, context_size: int, *, seed: Seed = 0, **network: Any) -> None:
        if bijection.context_shape is not None:
            raise ValueError(requirement("bijection", "take no context of its own", bijection.context_shape))
        self.skeleton = Skeleton(bijection)
        self.network = MLP(context_size, self.skeleton.size, seed=seed, **network)
        self.in_shape, self.out_shape, self.context_shape = bijection.in_shape, bijection.out_shape, (context_size,)
        self.forward_cost, self.inverse_cost = bijection.forward_cost, bijection.inverse_cost

    def driven(self, context: Array) -> AbstractBijection:
        """The bijection at one context."""
        return self.skeleton(self.network(context))

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        if context is None:
            raise ValueError(requirement("context", f"be an array of shape {self.context_shape}", "None"))
        return self.driven(context)._forward_and_log_det(x, None)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        if context is None:
            raise ValueError(requirement("context", f"be an array of shape {self.context_shape}", "None"))
        return self.driven(context)._inverse_and_log_det(y, None)
