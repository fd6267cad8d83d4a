"""What objectives on draws of q are made of: log p and log q at each draw."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thalweg._core import Array, PRNGKeyArray, PyTree, over_batch
from thalweg.distributions import AbstractSampler
from thalweg.targets import Target


def log_density_of_batch(target: Target, u: Array, data: PyTree = None, weight: Array | float = 1.0) -> Array:
    """The target's log density at each row of `u`."""
    return over_batch(lambda point: target.log_density(point, data, weight), {"u": (u, (target.size,))})


def log_p_and_log_q(
    target: Target,
    distribution: AbstractSampler,
    key: PRNGKeyArray,
    batch: PyTree = None,
    *,
    n_draws: int,
    path: bool,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    likelihood_factor: Array | float = 1.0,
) -> tuple[Array, Array]:
    """(log p, log q), each (n_draws,), at draws of q; differentiable in q's numbers by way of the draws.

    Args:
        target: p.
        distribution: q.
        key: of all the draws; the whole batch's keys are split, so that any number of devices makes the same ones.
        batch: takes the place of the target's data.
        n_draws: how many.
        path: whether log q's own numbers are held, so that its derivative follows the draws alone.
        batch_size: rows of the data, drawn at random, whose log-likelihood stands for all; None for all.
        mesh: devices to cut the draws over.
        likelihood_factor: multiplies the log-likelihood of a split target.
    """
    draw, data, weight = key, (target.data if batch is None else batch), likelihood_factor
    if batch_size is not None:
        draw, pick = jax.random.split(key)
        data, share = target.rows(pick, data, batch_size)
        weight = share * likelihood_factor
    keys = jax.random.split(draw, n_draws)
    if mesh is not None:
        keys = jax.lax.with_sharding_constraint(keys, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    u, log_q = (distribution.sample_and_path_log_q if path else distribution.sample_and_log_q)(keys)
    return log_density_of_batch(target, u, data, weight), log_q
