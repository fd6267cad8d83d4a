"""Gaussians of many coordinates, against closed forms and against the fit of all directions at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.fit import GaussianFit, MeanFieldFit, SketchedFit
from thalweg.fit._gaussian import has_settled
from thalweg.run import Status, run


def _walk(d):
    """An autoregression whose states are correlated over a hundred steps; its scales go over five decades."""
    scale = np.logspace(-3, 2, d)

    def log_density(p, data):
        x = p["x"] / data["scale"] - data["loc"]
        return norm.logpdf(x[0], 0, 5.0) + norm.logpdf(x[1:], 0.98 * x[:-1], 1.0).sum() - jnp.log(data["scale"]).sum()

    loc = np.random.default_rng(0).standard_normal(d)
    target = tw.from_function(log_density, {"x": tw.real(d)}, {"scale": scale, "loc": loc})
    backward = np.eye(d) - 0.98 * np.eye(d, k=-1)
    tril = np.linalg.inv(backward) @ np.diag([5.0] + [1.0] * (d - 1))
    return target, scale * loc, scale[:, None] * tril


def test_each_coordinate_alone_finds_what_is_independent():
    scale, loc = np.array([0.2, 1.0, 20.0]), np.array([2.0, -3.0, 30.0])
    target = tw.from_function(
        lambda p, data: norm.logpdf(p["x"], data["loc"], data["scale"]).sum(),
        {"x": tw.real(3)},
        {"loc": loc, "scale": scale},
    )
    process = MeanFieldFit(target)
    found = run(process, process.init(np.zeros(3), 1.0), jax.random.key(0), steps=process.steps)
    np.testing.assert_allclose((found.state.loc - loc) / scale, 0, atol=0.1)
    np.testing.assert_allclose(found.state.log_sd, np.log(scale), atol=0.1)
    np.testing.assert_allclose(found.history["elbo"][-1], 0, atol=0.05)


def test_sketches_find_a_covariance_of_which_each_sees_a_part():
    target, loc, tril = _walk(120)
    process = SketchedFit(target, n_pairs=24)
    found = run(process, process.init(np.zeros(120), np.eye(120)), jax.random.key(0), steps=500)
    assert found.status is Status.CONVERGED
    np.testing.assert_allclose(found.history["elbo"][-1], 0, atol=1e-2)
    np.testing.assert_allclose(np.linalg.solve(tril, found.state.loc - loc), 0, atol=1e-2)
    np.testing.assert_allclose(np.linalg.svd(np.linalg.solve(tril, found.state.scale_tril))[1], 1, atol=1e-2)


def test_sketches_reach_the_optimum_that_all_directions_reach():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 24))
    y = rng.random(60) < 1 / (1 + np.exp(-2 * x[:, 0]))

    def log_density(p, data):
        logit = data["x"] @ p["w"]
        return norm.logpdf(p["w"], 0, 2.0).sum() - jnp.logaddexp(0, jnp.where(data["y"], -logit, logit)).sum()

    target = tw.from_function(log_density, {"w": tw.real(24)}, {"x": x, "y": y})
    whole, part = GaussianFit(target), SketchedFit(target)
    first = run(whole, whole.init(np.zeros((1, 24))), jax.random.key(0), steps=500)
    second = run(part, part.init(np.zeros(24), np.eye(24)), jax.random.key(1), steps=500)
    tril = first.state.scale_tril[0]
    between = np.linalg.solve(tril, second.state.loc - first.state.loc[0])
    ratios = np.linalg.svd(np.linalg.solve(tril, second.state.scale_tril))[1]
    assert 0.5 * (between @ between + (ratios**2 - 1 - 2 * np.log(ratios)).sum()) < 0.1  # the KL divergence, in nats


def _flat_far_off_and_nothing_beyond():
    def log_density(p):
        x = p["x"]
        return jnp.where(jnp.abs(x).max() > 60, -jnp.inf, -2 * jnp.sqrt(1 + x**2).sum())

    return SketchedFit(tw.from_function(log_density, {"x": tw.real(20)}))


def test_what_lowers_the_elbo_is_taken_back_and_what_has_no_density_narrows():
    process = _flat_far_off_and_nothing_beyond()
    found = run(process, process.init(np.full(20, 30.0), 30 * np.eye(20)), jax.random.key(0), steps=500)
    assert not found.history["good"].all()
    assert found.status is Status.CONVERGED
    np.testing.assert_allclose(found.state.loc, 0, atol=0.2)
    assert np.isfinite(found.history["elbo"][-60:]).all()


def test_a_state_from_a_file_goes_on_to_the_same_bits():
    process = _flat_far_off_and_nothing_beyond()
    kept = reread = process.init(np.full(20, 30.0), 30 * np.eye(20))
    bad = 0
    for i in range(40):
        kept, records = process.advance(kept, jax.random.key(0), i, 1)
        copied = jax.tree.map(np.array, reread)
        reread, _ = process.advance(copied, jax.random.key(0), i, 1)
        bad += not records["good"][0]
    assert bad > 0
    for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(reread), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_scale_with_a_tail_to_one_side_is_not_widened_on_and_on():
    """Along the last, short step its curvature at the mean is lower than over the draws."""
    y = np.random.default_rng(0).normal(0, 1.1, 150)

    def log_density(p, data):
        prior = norm.logpdf(p["mu"]) + norm.logpdf(p["tau"]) + norm.logpdf(p["z"]).sum()
        return prior + norm.logpdf(data, p["mu"] + p["tau"] * p["z"], 1.0).sum()

    target = tw.from_function(log_density, {"mu": tw.real(), "tau": tw.positive(), "z": tw.real(150)}, y)
    sketched, whole = SketchedFit(target), GaussianFit(target)
    ends = [
        run(process, state, jax.random.key(0), steps=300).history["elbo"][-20:]
        for process, state in (
            (sketched, sketched.init(np.zeros(target.size), 0.5 * np.eye(target.size))),
            (whole, whole.init(np.zeros((1, target.size)))),
        )
    ]
    assert abs(np.median(ends[0]) - np.median(ends[1])) < 0.1


def test_an_elbo_that_rises_steeply_has_not_settled_and_noise_has():
    rising = np.concatenate(
        [np.linspace(-300, -60, 20), [-20_000.0], np.linspace(-58, -53, 19), np.linspace(-53, -49, 20)]
    )
    assert not has_settled(rising, 20)
    noise = np.random.default_rng(0).normal(-3.0, 0.1, (200, 60))
    assert np.mean([has_settled(row, 20) for row in noise]) > 0.8
