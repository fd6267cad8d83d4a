"""Forward KL: maximum likelihood on draws, weighted or not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, PRNGKeyArray, PyTree, Scalar, check_positive_int, from_numpy, register, requirement
from thalweg.distributions import AbstractAuxiliaryDistribution, AbstractSampler
from thalweg.objectives._objective import AbstractObjective


@register
class ForwardKL(AbstractObjective):
    r"""$-\sum_i \hat w_i \log q(x_i | c_i)$: the forward KL from draws of p up to p's own entropy.

    With log weights log p - log r of draws of another r, it covers p's mass where the reverse KL seeks a mode. For an
    auxiliary distribution log q is its bound from below, by one reverse draw a point.

    Args:
        points: draws, (n, *shape).
        log_weights: (n,), up to a constant; None for equal ones.
        context: what each draw is conditioned on, (n, *context_shape); None for nothing.
        batch_size: draws a step, drawn at random with their weights as chances; None for all.

    Raises:
        ValueError: if the lengths differ, a point is not finite, or no weight is positive.
    """

    points: Array
    log_weights: Array
    cumulated: Array
    context: Array | None
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self, points: Any, log_weights: Any = None, context: Any = None, *, batch_size: int | None = None
    ) -> None:
        x = np.asarray(points, float)
        if x.ndim == 0 or not len(x):
            raise ValueError(requirement("points", "have at least one row", f"shape {x.shape}"))
        weights = np.zeros(len(x)) if log_weights is None else np.asarray(log_weights, float)
        if not np.isfinite(x).all():
            raise ValueError(requirement("points", "be finite", f"{(~np.isfinite(x)).sum()} that are not"))
        if weights.shape != x.shape[:1]:
            raise ValueError(requirement("log_weights", f"have shape {x.shape[:1]}", weights.shape))
        if np.isnan(weights).any() or not np.isfinite(weights.max()):
            raise ValueError(requirement("log_weights", "hold a finite number, and no NaN or +inf", weights.max()))
        if context is not None and len(context) != len(x):
            raise ValueError(requirement("context", f"have {len(x)} rows, as points", len(context)))
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        shifted = weights - weights.max()
        self.points, self.log_weights = from_numpy(x), from_numpy(shifted - np.log(np.exp(shifted).sum()))
        ladder = np.cumsum(np.exp(shifted))
        self.cumulated = from_numpy(ladder / ladder[-1])
        self.context = None if context is None else from_numpy(np.asarray(context, float))
        self.batch_size = batch_size

    def __call__(
        self, distribution: AbstractSampler, key: PRNGKeyArray, batch: PyTree = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """(-mean log q, {"elbo": mean log q}); `batch`, (points, context), takes the place of the points."""
        pick, own = jax.random.split(key)
        points, context, share = self.points, self.context, jnp.exp(self.log_weights)
        if batch is not None:
            (points, context), share = batch, jnp.full(len(batch[0]), 1 / len(batch[0]))
        elif self.batch_size is not None:
            # by the inverse of their distribution function: no n numbers for each row
            uniform = jax.random.uniform(pick, (self.batch_size,), self.cumulated.dtype)
            rows = jnp.minimum(jnp.searchsorted(self.cumulated, uniform, side="right"), len(points) - 1)
            points, share = points[rows], jnp.full(self.batch_size, 1 / self.batch_size)
            context = None if context is None else context[rows]
        if isinstance(distribution, AbstractAuxiliaryDistribution):
            log_q = distribution.log_prob_bounds(own, points, 1, context).lower
        else:
            log_q = distribution.log_prob(points, context)  # pyright: ignore[reportAttributeAccessIssue]
        # a draw of weight 0 counts for nothing, whatever q says of it
        mean = jnp.sum(jnp.where(share > 0, share * log_q, 0))
        return -mean, {"elbo": mean}
