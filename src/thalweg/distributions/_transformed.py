"""A base distribution pushed through a bijection: a flow."""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from thalweg._core import Array, Shape, freeze, register, requirement
from thalweg.bijections import AbstractBijection
from thalweg.distributions._distribution import AbstractDistribution


@register
class Transformed(AbstractDistribution):
    r"""The law of f(z), z ~ base: $\log q(x) = \log q_0(f^{-1}(x)) + \log|\det df^{-1}/dx|$.

    Args:
        base: draws z; takes no context.
        bijection: f, from the base's points to this distribution's.

    Raises:
        ValueError: if the shapes do not fit.
    """

    base: AbstractDistribution
    bijection: AbstractBijection
    takes_batches: ClassVar[bool] = True

    def __init__(self, base: AbstractDistribution, bijection: AbstractBijection) -> None:
        self.base, self.bijection = base, bijection
        if self.base.shape != self.bijection.in_shape:
            raise ValueError(
                requirement("bijection", f"take points of shape {self.base.shape}", self.bijection.in_shape)
            )
        if self.base.context_shape is not None:
            raise ValueError(requirement("base", "take no context", self.base.context_shape))

    @property
    def shape(self) -> Shape:
        """The bijection's out_shape."""
        return self.bijection.out_shape

    @property
    def context_shape(self) -> Shape | None:
        """The bijection's."""
        return self.bijection.context_shape

    def _base(self, method: str, argument: Array, *, batched: bool) -> Any:
        function = partial(getattr(self.base, method), context=None)
        return jax.vmap(function, in_axes=-1, out_axes=-1)(argument) if batched else function(argument)

    def _sample(self, key: Array, context: Array | None) -> Array:
        z = self._base("_sample", key, batched=key.ndim > 0)
        return self.bijection._apply("_forward_and_log_det", z, context=context)[0]

    def _sample_and_log_q(self, key: Array, context: Array | None) -> tuple[Array, Array]:
        z, log_base = self._base("_sample_and_log_q", key, batched=key.ndim > 0)
        x, log_det = self.bijection._apply("_forward_and_log_det", z, context=context)
        return x, log_base - log_det

    def _sample_and_path_log_q(self, key: Array, context: Array | None) -> tuple[Array, Array]:
        # the score is pushed along with the draw, so that nothing is inverted
        frozen = jax.lax.stop_gradient
        fixed = freeze(self)
        z = self._base("_sample", key, batched=key.ndim > 0)
        log_base, pull = jax.vjp(lambda z: fixed._base("_log_prob", z, batched=key.ndim > 0), frozen(z))
        (score,) = pull(jnp.ones_like(log_base))
        x, log_det, score = self.bijection._apply("_forward_with_score", z, score, context=context)
        along = score * (x - frozen(x))
        return x, frozen(log_base - log_det) + along.sum(axis=tuple(range(len(self.shape))))

    def _log_prob(self, x: Array, context: Array | None) -> Array:
        z, log_det = self.bijection._apply("_inverse_and_log_det", x, context=context)
        return self._base("_log_prob", z, batched=x.ndim > len(self.shape)) + log_det
