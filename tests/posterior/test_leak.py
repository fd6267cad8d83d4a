"""Chains of the target leave a distribution that lacks a known part of it, and no other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg import problems
from thalweg.bijections import AbstractBijection, Identity
from thalweg.distributions import AbstractDistribution, ContinuouslyIndexed, Transformed
from thalweg.posterior._leak import Corrected, missed_mass


def log_ridge(u):
    """A banana, x ~ N(0, 3^2), y ~ N(x^2, 1)."""
    return norm.logpdf(u[0], 0.0, 3.0) + norm.logpdf(u[1], u[0] ** 2, 1.0)


class Part(AbstractDistribution):
    """The ridge where x lies below its quantile of order `share`."""

    share: float = eqx.field(static=True)
    shape = (2,)
    context_shape = None

    def _sample_and_log_q(self, key, context):
        own, other = jax.random.split(key)
        x = 3.0 * norm.ppf(self.share * jax.random.uniform(own, minval=1e-9))
        u = jnp.stack([x, x**2 + jax.random.normal(other)])
        return u, self._log_prob(u, context)

    def _log_prob(self, u, context):
        return jnp.where(norm.cdf(u[0] / 3.0) <= self.share, log_ridge(u) - np.log(self.share), -jnp.inf)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("share", "found"), [(1.0, False), (0.9, True), (0.7, True)])
def test_a_part_that_is_left_out_is_found(share, found, seed):
    target = tw.from_function(lambda p: log_ridge(jnp.stack([p["x"], p["y"]])), {"x": tw.real(), "y": tw.real()})
    part = Part(share)
    u, log_q = part.sample_and_log_q(seed, 10_000)
    log_p = np.asarray(jax.vmap(log_ridge)(u))
    # every weight is the same: nothing in the draws tells of the part that is left out
    np.testing.assert_allclose(log_p - log_q, np.log(share), atol=1e-9)
    draws = Corrected(np.asarray(u), np.full(len(u), 1 / len(u)), log_p, np.asarray(log_q))
    sentence = missed_mass(part, target, draws, np.log(share), jax.random.key(seed), doubtful=False)
    assert ("leave the flow" in (sentence or "")) == found, sentence


@pytest.mark.parametrize(("share", "found"), [(1.0, False), (0.9, True)])
def test_a_part_that_an_indexed_flow_leaves_out_is_found(share, found):
    target = tw.from_function(lambda p: log_ridge(jnp.stack([p["x"], p["y"]])), {"x": tw.real(), "y": tw.real()})
    # a layer that moves nothing, by an index that is drawn wider than it is scored: log q is noise about its bound
    part = ContinuouslyIndexed(Part(share), [Identity((2,))], width=1)
    part = eqx.tree_at(lambda q: q.layer.index.network.biases[-1], part, jnp.array([[0.4, 0.0]]))
    u, log_q = part.sample_and_log_q(0, 10_000)
    log_p = np.asarray(jax.vmap(log_ridge)(u))
    assert 0.1 < np.std(log_p - log_q) < 1
    draws = Corrected(np.asarray(u), np.full(len(u), 1 / len(u)), log_p, np.asarray(log_q))
    sentence = missed_mass(part, target, draws, np.log(share), jax.random.key(0), doubtful=False)
    assert ("leave the flow" in (sentence or "")) == found, sentence


class Funnel(AbstractBijection):
    """v = 3 z_0, x_i = exp(v / 2) z_i: Neal's funnel in 10 dimensions, of a standard normal."""

    in_shape = out_shape = (10,)
    context_shape = None
    forward_cost = inverse_cost = "direct"

    def _forward_and_log_det(self, z, context):
        v = 3 * z[0]
        return jnp.concatenate([v[None], jnp.exp(v / 2) * z[1:]]), jnp.log(3.0) + 9 * v / 2

    def _inverse_and_log_det(self, x, context):
        return jnp.concatenate([x[:1] / 3, jnp.exp(-x[0] / 2) * x[1:]]), -jnp.log(3.0) - 9 * x[0] / 2


class Above(AbstractDistribution):
    """A standard normal where its first coordinate is above its quantile of order `lost`."""

    lost: float = eqx.field(static=True)
    shape = (10,)
    context_shape = None

    def _sample_and_log_q(self, key, context):
        own, other = jax.random.split(key)
        first = norm.ppf(jax.random.uniform(own, minval=max(self.lost, 1e-9)))
        z = jnp.concatenate([first[None], jax.random.normal(other, (9,))])
        return z, self._log_prob(z, context)

    def _log_prob(self, z, context):
        return jnp.where(norm.cdf(z[0]) >= self.lost, norm.logpdf(z).sum() - np.log(1 - self.lost), -jnp.inf)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("lost", [0.0, 0.05])
def test_the_neck_of_a_funnel_is_found_in_the_flows_own_coordinates(lost, seed):
    target = problems.funnel().target
    flow = Transformed(Above(lost), Funnel())
    u, log_q = flow.sample_and_log_q(seed, 10_000)
    log_p = np.asarray(jax.vmap(target.log_density)(u))
    np.testing.assert_allclose(log_p - log_q, np.log(1 - lost), atol=1e-8)
    draws = Corrected(np.asarray(u), np.full(len(u), 1 / len(u)), log_p, np.asarray(log_q))
    sentence = missed_mass(flow, target, draws, np.log(1 - lost), jax.random.key(seed), doubtful=False)
    assert ("leave the flow" in (sentence or "")) == (lost > 0), sentence
