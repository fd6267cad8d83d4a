"""Gaussians of many coordinates by their curvature, against closed forms, the sketched fit, and Stein's identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.fit import CurvatureFit, SketchedFit
from thalweg.run import Status, run
from thalweg.targets import sparsity_of, value_and_score_of_rows


def _fitted(target, loc, sd, seed=0):
    sparsity = sparsity_of(target, loc, np.random.default_rng(0))
    process = CurvatureFit(target, sparsity)
    result = run(process, process.init(loc, sd), jax.random.key(seed), steps=500)
    return result, process.scale_tril(result.state)


def test_an_autoregression_is_found_exactly():
    d = 150
    scale, loc = np.logspace(-2, 2, d), np.random.default_rng(0).standard_normal(d)

    def log_density(p, data):
        x = p["x"] / data["scale"] - data["loc"]
        return norm.logpdf(x[0], 0, 5.0) + norm.logpdf(x[1:], 0.98 * x[:-1], 1.0).sum() - jnp.log(data["scale"]).sum()

    target = tw.from_function(log_density, {"x": tw.real(d)}, {"scale": scale, "loc": loc})
    backward = np.eye(d) - 0.98 * np.eye(d, k=-1)
    tril = scale[:, None] * (np.linalg.inv(backward) @ np.diag([5.0] + [1.0] * (d - 1)))
    found, found_tril = _fitted(target, np.zeros(d), np.ones(d))
    assert found.status is Status.CONVERGED
    np.testing.assert_allclose(found.history["elbo"][-1], 0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.solve(tril, found.state.loc - scale * loc), 0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.svd(np.linalg.solve(tril, found_tril))[1], 1, atol=1e-3)


def _counts(n):
    """A random walk seen by counts, its step unknown: neither Gaussian nor everywhere concave."""
    rng = np.random.default_rng(2)
    y = rng.poisson(np.exp(1 + np.cumsum(0.2 * rng.standard_normal(n)))).astype(float)

    def log_density(p, y):
        x = p["x"]
        walk = norm.logpdf(x[0], 0, 2.0) + norm.logpdf(x[1:], x[:-1], p["s"]).sum()
        return norm.logpdf(p["s"], 0, 0.5) + walk + (y * x - jnp.exp(x)).sum()

    return tw.from_function(log_density, {"s": tw.positive(), "x": tw.real(n)}, y)


@pytest.mark.slow
def test_the_optimum_is_one_and_the_one_that_sketches_find():
    target = _counts(110)
    result, tril = _fitted(target, np.zeros(111), np.ones(111))
    rng = np.random.default_rng(3)
    z = rng.standard_normal((20_000, 111))
    z = np.concatenate([z, -z])
    log_p, score = value_and_score_of_rows(target, result.state.loc + z @ tril.T)
    score = score @ tril
    # where the ELBO is stationary E[score] = 0 and E[score z'] = -I, in the Gaussian's own coordinates
    np.testing.assert_allclose(score.mean(0), 0, atol=0.05)
    np.testing.assert_allclose((score * z).mean(0), -1, atol=0.1)
    sketched = SketchedFit(target)
    other = run(sketched, sketched.init(np.zeros(111), np.eye(111)), jax.random.key(1), steps=500).state
    there = z @ other.scale_tril.T + other.loc
    log_p_there, _ = value_and_score_of_rows(target, there)
    here = log_p.mean() + np.log(np.diagonal(tril)).sum()
    assert here > log_p_there.mean() + np.linalg.slogdet(other.factor)[1] - 0.1


def test_a_density_that_curves_upwards_along_the_way_is_climbed():
    target = tw.from_function(lambda p: -jnp.log1p((p["x"] - 3.0) ** 2 / 4).sum() * 2.5, {"x": tw.real(120)})
    found, _ = _fitted(target, np.full(120, -20.0), np.ones(120))
    np.testing.assert_allclose(found.state.loc, 3.0, atol=0.2)
    assert np.isfinite(found.history["elbo"]).all()


def test_it_stops_and_goes_on_to_the_same_bits():
    target = _counts(110)
    sparsity = sparsity_of(target, np.zeros(111), np.random.default_rng(0))
    process, key = CurvatureFit(target, sparsity), jax.random.key(4)
    whole, _ = process.advance(process.init(np.zeros(111), np.ones(111)), key, 0, 6)
    half, _ = process.advance(process.init(np.zeros(111), np.ones(111)), key, 0, 3)
    again, _ = process.advance(jax.tree.map(np.array, half), key, 3, 3)
    np.testing.assert_array_equal(again.precision, whole.precision)
    np.testing.assert_array_equal(again.loc, whole.loc)
