"""A base distribution pushed through a bijection: a flow."""

import jax

from thalweg._core import Array, PRNGKeyArray, Scalar, Shape, register, requirement
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

    def _sample(self, key: PRNGKeyArray, context: Array | None) -> Array:
        return self.bijection._forward_and_log_det(self.base._sample(key, None), context)[0]

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        z, log_base = self.base._sample_and_log_q(key, None)
        x, log_det = self.bijection._forward_and_log_det(z, context)
        return x, log_base - log_det

    def _sample_and_path_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        # the score is pushed along with the draw, so that nothing is inverted
        z = self.base._sample(key, None)
        frozen = jax.lax.stop_gradient
        log_base, score = jax.value_and_grad(frozen(self.base)._log_prob)(frozen(z), None)
        x, log_det, score = self.bijection._forward_with_score(z, score, context)
        return x, frozen(log_base - log_det) + (score * (x - frozen(x))).sum()

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        z, log_det = self.bijection._inverse_and_log_det(x, context)
        return self.base._log_prob(z, None) + log_det
