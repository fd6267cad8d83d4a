"""What is fitted in a base, and what is not, against SciPy and quadrature."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from thalweg._core import partition_trainable
from thalweg.distributions import LowRankNormal, Normal, StandardNormal, StudentT, TrainableStudentT, UniformBox

NU = 4.0


def trained(q):
    return sorted(jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(partition_trainable(q)[0]))


def test_what_is_trained_is_its_owners_choice():
    assert trained(Normal([0.0], [1.0])) == [".loc", ".log_scale"]
    assert trained(LowRankNormal([0.0], [1.0], [[1.0]])) == [".factor", ".loc", ".log_scale"]
    assert trained(TrainableStudentT((2,))) == [".logit"]
    fixed = [StandardNormal((1,)), StudentT((1,)), UniformBox([0.0], [1.0])]
    fixed += [Normal([0.0], [1.0], trainable=False), LowRankNormal([0.0], [1.0], [[1.0]], trainable=False)]
    assert [trained(q) for q in fixed] == [[]] * 5


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1e20), (1e18, 1.0), (-1e18, 1e17), (3.0, 1e-20)])
def test_normals_in_any_units(loc, scale):
    x = loc + scale * np.array([-1.5, 0.0, 2.0])[:, None]
    truth = stats.norm.logpdf(x, loc, scale)[:, 0]
    for q in (Normal([loc], [scale]), LowRankNormal([loc], [scale], [[0.0]])):
        np.testing.assert_allclose(q.log_prob(jnp.asarray(x)), truth, rtol=1e-9)
        drawn, log_q = q.sample_and_log_prob(0, 5)
        np.testing.assert_allclose(q.log_prob(drawn), log_q, rtol=1e-6, atol=1e-6 if abs(loc) < scale else 40)


def test_degrees_of_freedom_of_the_greatest_likelihood():
    draws = stats.t.rvs(3, size=4000, random_state=np.random.default_rng(0))
    (nu, *_) = stats.t.fit(draws, floc=0, fscale=1)

    @jax.jit
    def slope(nu):
        q = TrainableStudentT((), 5.0)
        low, high = q._limits
        logit = jnp.log(nu - low) - jnp.log(high - nu)

        def mean_log_prob(logit):
            return eqx.tree_at(lambda q: q.logit, q, logit).log_prob(jnp.asarray(draws)).mean()

        return jax.grad(mean_log_prob)(logit)

    assert abs(slope(nu)) < 1e-5
    assert slope(0.8 * nu) > 1e-3
    assert slope(1.25 * nu) < -1e-3


def test_draws_move_with_the_degrees_of_freedom():
    def expected(nu):
        return 2 * integrate.quad(lambda x: np.log1p(x**2) * stats.t.pdf(x, nu), 0, np.inf)[0]

    truth = (expected(NU + 1e-3) - expected(NU - 1e-3)) / 2e-3
    q = TrainableStudentT((), NU)
    per_logit = (NU - 0.5) * (200 - NU) / 199.5

    @jax.jit
    def slopes(keys):
        def value(logit, key):
            return jnp.log1p(eqx.tree_at(lambda q: q.logit, q, logit).sample(key) ** 2)

        return jax.vmap(jax.grad(value), (None, 0))(q.logit, keys) / per_logit

    found = np.asarray(slopes(jax.random.split(jax.random.key(0), 100_000)))
    assert abs(found.mean() - truth) < 5 * found.std() / np.sqrt(len(found))
    assert abs(truth) > 20 * found.std() / np.sqrt(len(found))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_low_rank_with_more_or_fewer_columns_than_coordinates(k, getkey):
    rng = np.random.default_rng(k)
    loc, scale, factor = rng.standard_normal(5), rng.uniform(0.1, 2, 5), rng.standard_normal((5, k))
    q = LowRankNormal(loc, scale, factor)
    covariance = np.diag(scale**2) + factor @ factor.T
    x, log_q = jax.jit(lambda key: q.sample_and_log_prob(key, 40_000))(getkey())
    np.testing.assert_allclose(log_q, stats.multivariate_normal.logpdf(x, loc, covariance), rtol=1e-10)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(x) - loc).T)
    np.testing.assert_allclose(whitened @ whitened.T / x.shape[0], np.eye(5), atol=5 * np.sqrt(2 / x.shape[0]))


def test_single_precision_keeps_the_form_where_woodburys_difference_loses_it():
    # one direction is known 10^4 times worse than the others: |w|^2 is 10^8 times the quadratic form
    factor, scale = np.full((50, 1), 100.0), np.full(50, 0.01)
    covariance = np.diag(scale**2) + factor @ factor.T
    x = np.asarray(np.random.default_rng(0).multivariate_normal(np.zeros(50), covariance, 20), np.float32)
    squares = np.einsum("ni,ni->n", x.astype(float), np.linalg.solve(covariance, x.T.astype(float)).T)
    truth = -0.5 * squares - 0.5 * np.linalg.slogdet(covariance)[1] - 25 * np.log(2 * np.pi)
    with jax.enable_x64(False):
        found = eqx.filter_jit(LowRankNormal.log_prob)(LowRankNormal(np.zeros(50), scale, factor), jnp.asarray(x))
    np.testing.assert_allclose(found, truth, atol=0.05)
