"""The smallest auxiliary distribution: some coordinates of an exact one are auxiliary."""

import equinox as eqx
import jax.numpy as jnp

from thalweg._core import Array, PRNGKeyArray, Scalar, Shape, register, requirement
from thalweg.distributions._distribution import AbstractAuxiliaryDistribution, AbstractDistribution


@register
class Augmented(AbstractAuxiliaryDistribution):
    """(z, u) ~ an exact joint distribution, where z matters and u is auxiliary; r(u | z) is exact too.

    Extra coordinates let a flow do what none of its own dimension can (change topology, say).
    Source: Huang et al. 2020.

    Args:
        joint: an exact distribution on R^(d + k); its first d coordinates are z. Takes no context.
        reverse: an exact distribution on R^k with context_shape (d,): r(u | z).

    Raises:
        ValueError: if the shapes do not fit.
    """

    joint: AbstractDistribution
    reverse: AbstractDistribution
    shape: Shape = eqx.field(static=True)
    context_shape: Shape | None = eqx.field(static=True)

    def __init__(self, joint: AbstractDistribution, reverse: AbstractDistribution) -> None:
        total, extra = joint.shape, reverse.shape
        if len(total) != 1 or len(extra) != 1 or reverse.context_shape != (total[0] - extra[0],):
            got = f"joint {total}, reverse {extra} given {reverse.context_shape}"
            raise ValueError(
                requirement("reverse", "have shape (k,) and context_shape (d,) for a joint of (d + k,)", got)
            )
        if joint.context_shape is not None:
            raise ValueError(requirement("joint", "take no context", joint.context_shape))
        self.joint, self.reverse = joint, reverse
        self.shape, self.context_shape = (total[0] - extra[0],), None

    def _sample_joint_and_log_prob(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Array, Scalar]:
        both, log_prob = self.joint._sample_and_log_q(key, None)
        return both[: self.shape[0]], both[self.shape[0] :], log_prob

    def _log_joint(self, z: Array, u: Array, context: Array | None) -> Scalar:
        return self.joint._log_prob(jnp.concatenate([z, u]), None)

    def _sample_reverse(self, key: PRNGKeyArray, z: Array, context: Array | None) -> Array:
        return self.reverse._sample(key, z)

    def _log_reverse(self, u: Array, z: Array, context: Array | None) -> Scalar:
        return self.reverse._log_prob(u, z)
