"""Defensive draws: their density is normalised and is that of the draws; the flow's own can be had back from them."""

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from helpers import noised
from thalweg.bijections import TriangularAffine
from thalweg.distributions import StandardNormal, StudentT, Transformed, defensive_draws
from thalweg.distributions._defensive import _draw_base
from thalweg.flows import make_flow

N = 20_000
LOC, TRIL = np.array([1.0, -2.0]), np.array([[2.0, 0.0], [1.5, 0.5]])
draw = eqx.filter_jit(defensive_draws)


def test_densities_against_scipy():
    """Along each coordinate of the affine map's image, the wide part is a Student-t cut off at 8 sd."""
    flow = make_flow("gaussian", 2, loc=LOC, scale_tril=TRIL)
    x, log_proposal, log_q = (np.asarray(a) for a in draw(flow, jax.random.key(0), N))
    z = np.linalg.solve(TRIL, (x - LOC).T).T
    own = stats.multivariate_t(df=30, shape=np.eye(2)).logpdf(z)
    np.testing.assert_allclose(log_q, own - np.log(np.diag(TRIL)).sum(), rtol=1e-9)
    kept = stats.t.cdf(8, 2) - stats.t.cdf(-8, 2)
    wide = 0.0
    for row in TRIL:
        along = z @ row / np.linalg.norm(row)
        ratio = np.where(np.abs(along) < 8, stats.t.pdf(along, 2) / kept, 0) / stats.norm.pdf(along)
        wide = wide + 0.5 * ratio * stats.multivariate_normal(np.zeros(2)).pdf(z)
    expected = np.log(0.9 * np.exp(own) + 0.1 * wide) - np.log(np.diag(TRIL)).sum()
    np.testing.assert_allclose(log_proposal, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["gaussian", "realnvp", "maf"])
def test_weights_make_them_the_flows_own(name):
    flow = noised(make_flow(name, 3, loc=np.ones(3), scale_tril=np.eye(3)))
    x, log_proposal, log_q = (np.asarray(a) for a in draw(flow, jax.random.key(1), N))
    np.testing.assert_allclose(log_q, flow.log_prob(jnp.asarray(x)), rtol=1e-6, atol=1e-6)
    ratio = np.exp(log_q - log_proposal)
    assert ratio.max() <= 1 / 0.9 + 1e-9
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(N)
    own = np.asarray(flow.sample(jax.random.key(2), N))
    for f in (np.tanh, np.square):
        error = np.hypot((ratio[:, None] * f(x)).std(0), f(own).std(0)) / np.sqrt(N)
        assert np.all(np.abs((ratio[:, None] * f(x)).mean(0) - f(own).mean(0)) < 5 * error)


def test_draws_follow_the_density():
    """In one dimension: quadrature of the density on intervals against the share of draws in them."""
    base, directions = StudentT((1,)), jnp.ones((1, 1))
    u = np.random.default_rng(3).uniform(1e-12, 1, (200_000, base.n_uniforms + 3))
    z, log_density, _ = eqx.filter_jit(jax.vmap(lambda u: _draw_base(base, directions, u, 0.1)))(jnp.asarray(u))
    z, log_density = np.asarray(z)[:, 0], np.asarray(log_density)
    order = np.argsort(z)
    edges = [-8, -4, -2, 0, 2, 4, 8]
    for low, high in pairwise(edges):
        inside = (z > low) & (z < high)
        grid = np.linspace(low, high, 2001)
        share = integrate.trapezoid(np.exp(np.interp(grid, z[order], log_density[order])), grid)
        error = np.sqrt(share * (1 - share) / len(z))
        assert abs(inside.mean() - share) < 5 * error + 2e-4


def test_other_flows_give_their_own_draws():
    flow = Transformed(StandardNormal((2,)), TriangularAffine(LOC, TRIL))
    x, log_proposal, log_q = draw(flow, jax.random.key(0), 50)
    np.testing.assert_array_equal(log_proposal, log_q)
    np.testing.assert_allclose(log_q, stats.multivariate_normal(LOC, TRIL @ TRIL.T).logpdf(x), rtol=1e-9)


def test_no_share_no_wide_draws():
    flow = noised(make_flow("realnvp", 2, loc=LOC, scale_tril=TRIL))
    x, log_proposal, log_q = (np.asarray(a) for a in draw(flow, jax.random.key(4), N, 0.0))
    np.testing.assert_array_equal(log_proposal, log_q)
    own = np.asarray(flow.sample(jax.random.key(5), N))
    for column in range(2):
        test: Any = stats.ks_2samp(x[:, column], own[:, column])
        assert test.pvalue > 1e-3
