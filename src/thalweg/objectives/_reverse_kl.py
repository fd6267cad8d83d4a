"""Reverse KL: the negative evidence lower bound of a target."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thalweg._core import Array, PRNGKeyArray, PyTree, Scalar, over_batch, register
from thalweg.distributions import AbstractSampler
from thalweg.objectives._objective import AbstractObjective
from thalweg.targets import Target


def log_density_of_batch(target: Target, u: Array, data: PyTree = None, weight: Array | float = 1.0) -> Array:
    """The target's log density at each row of `u`."""
    return over_batch(lambda point: target.log_density(point, data, weight), {"u": (u, (target.size,))})


@register
class ReverseKL(AbstractObjective):
    r"""$\mathrm{KL}(q \| p) - \log Z = -\mathrm{ELBO} = E_q[\log q(u) - \log p(u)]$ over n draws.

    Exact and auxiliary distributions alike; for the latter log q is the extended term and the loss an upper bound.

    Args:
        target: the log density on R^d, up to a constant.
        n_draws: draws a step.
        path: use the path gradient ("sticking the landing"), whose variance vanishes as q approaches the target; it
            costs one evaluation of q's inverse. False gives the plain reparametrised gradient.
        batch_size: rows of the data a step, for targets made by `from_likelihood` (doubly stochastic: the rows'
            log-likelihood is scaled up by n / batch_size, which keeps value and gradient unbiased); None for all.
        mesh: devices to cut the draws over; the whole batch's keys are split, not each device's, so that any number of
            devices makes the same draws. `n_draws` must be a multiple of their number.

    Source: Rezende and Mohamed 2015; Roeder et al. 2017; Titsias and Lazaro-Gredilla 2014.
    """

    target: Target
    n_draws: int = eqx.field(static=True, default=128)
    path: bool = eqx.field(static=True, default=True)
    batch_size: int | None = eqx.field(static=True, default=None)
    mesh: Mesh | None = eqx.field(static=True, default=None)

    def __call__(
        self, distribution: AbstractSampler, key: PRNGKeyArray, batch: PyTree = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """(-ELBO, {"elbo": ELBO}); `batch` takes the place of the target's data."""
        draw, data, weight = key, (self.target.data if batch is None else batch), 1.0
        if self.batch_size is not None:
            draw, pick = jax.random.split(key)
            data, weight = self.target.rows(pick, data, self.batch_size)
        keys = jax.random.split(draw, self.n_draws)
        if self.mesh is not None:
            over_all = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
            keys = jax.lax.with_sharding_constraint(keys, over_all)
        u, log_q = (distribution.sample_and_path_log_q if self.path else distribution.sample_and_log_q)(keys)
        loss = jnp.mean(log_q - log_density_of_batch(self.target, u, data, weight))
        return loss, {"elbo": -loss}
