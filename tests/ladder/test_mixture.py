"""Separate modes: each gets a component, and its share of the mass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import integrate

import thalweg as tw
from thalweg.distributions import Mixture, Normal
from thalweg.ladder._mixture import weigh_components


def of_normals(means, scales, weights):
    """The log density of a mixture of isotropic normals."""
    means, scales, log_w = jnp.asarray(means), jnp.asarray(scales), jnp.log(jnp.asarray(weights))

    def log_density(p):
        parts = norm.logpdf(p["x"][None], means, scales[:, None]).sum(-1)
        return jax.nn.logsumexp(log_w + parts)

    return tw.from_function(log_density, {"x": tw.real(len(means[0]))})


def check(posterior, means, scales, weights):
    """Trusted, the evidence right, and every mode with its share of the draws and its spread."""
    assert posterior.verdict.ok, posterior.verdict
    evidence = posterior.log_evidence
    assert abs(evidence.value) < 4 * evidence.standard_error + 1e-3
    x = posterior.resample(10_000, seed=1)["x"]
    nearest = np.argmin(np.linalg.norm(x[:, None] - means, axis=2), axis=1)
    for k, weight in enumerate(weights):
        share = (nearest == k).mean()
        assert abs(share - weight) < 5 * np.sqrt(weight / posterior.verdict.ess) + 5 * np.sqrt(weight / 10_000)
        assert x[nearest == k].std(0) == pytest.approx(scales[k], rel=0.15)


def test_two_modes_of_unequal_mass():
    means, scales, weights = np.array([[8.0] * 6, [-8.0] * 6]), np.array([0.5, 0.7]), [0.8, 0.2]
    posterior = tw.infer(of_normals(means, scales, weights), progress=False)
    check(posterior, means, scales, weights)
    assert "2 modes" in posterior.steps_taken[0]
    assert "mixture of 2 Gaussians" in posterior.steps_taken[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_nine_modes_on_a_grid(seed):
    means = 10.0 * np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    weights = np.arange(1, 10) / 45
    posterior = tw.infer(of_normals(means, np.full(9, 0.8), weights), seed=seed, progress=False)
    check(posterior, means, np.full(9, 0.8), weights)


@pytest.mark.slow
def test_mirrored_bent_modes_get_flows():
    """N(1; a b, 0.2) with normal priors: two bananas."""

    def log_density(p):
        return norm.logpdf(p["a"]) + norm.logpdf(p["b"]) + norm.logpdf(1.0, p["a"] * p["b"], 0.2)

    posterior = tw.infer(tw.from_function(log_density, {"a": tw.real(), "b": tw.real()}), progress=False)
    assert posterior.verdict.ok, posterior.verdict

    def density(b, a):
        exponent = a**2 + b**2 + ((1 - a * b) / 0.2) ** 2
        return np.exp(-0.5 * exponent) / (2 * np.pi) ** 1.5 / 0.2

    truth = np.log(
        2 * integrate.dblquad(density, 0, 8, 0, 8, epsabs=1e-10)[0]
        + 2 * integrate.dblquad(density, -8, 0, 0, 8, epsabs=1e-10)[0]
    )
    assert abs(posterior.log_evidence.value - truth) < 4 * posterior.log_evidence.standard_error
    a = posterior.resample(10_000)["a"]
    assert abs((a > 0).mean() - 0.5) < 0.05


@pytest.mark.slow
def test_a_wide_part_about_a_narrow_one():
    """Half of the mass has ten times the width: a narrow Gaussian's own draws know nothing of it."""
    target = of_normals(np.zeros((2, 10)), [1.0, 10.0], [0.5, 0.5])
    posterior = tw.infer(target, progress=False)
    assert posterior.verdict.ok, posterior.verdict
    assert abs(posterior.log_evidence.value) < 4 * posterior.log_evidence.standard_error
    assert posterior.resample(10_000)["x"].std() == pytest.approx(np.sqrt(50.5), rel=0.05)
    alone = tw.infer(target, "gaussian", progress=False)
    assert "another mode" in str(alone.verdict)


def test_weights_follow_the_masses():
    mixture = Mixture([Normal([-5.0], [1.0]), Normal([5.0], [1.0])])
    target = of_normals([[-5.0], [5.0]], [1.0, 1.0], [0.9, 0.1])
    weights = weigh_components(mixture, target, jax.random.key(0)).weights
    np.testing.assert_allclose(weights, [0.9, 0.1], atol=0.03)


def test_messages():
    with pytest.raises(ValueError, match="`weights` must be 2 positive numbers"):
        Mixture([Normal([0.0], [1.0]), Normal([1.0], [1.0])], [1.0, 0.0])
    with pytest.raises(ValueError, match="`layers` must all have the same structure"):
        Mixture([Normal([0.0], [1.0]), Normal([1.0, 2.0], [1.0, 1.0])])


def test_small_modes_count_together():
    """Ten modes of 0.6 % each: none would matter alone."""
    size = 5
    centers = np.concatenate([np.zeros((1, size)), 9 * np.eye(size), -9 * np.eye(size)])
    target = of_normals(centers, np.ones(11), [0.94] + [0.006] * 10)
    posterior = tw.infer(target, seed=0, progress=False)
    assert posterior.verdict.ok
    assert abs(posterior.log_evidence.value) < 5 * posterior.log_evidence.standard_error
    assert posterior.resample(20_000)["x"].std() == pytest.approx(np.sqrt(1 + 0.012 * 81), rel=0.05)


@pytest.mark.slow
def test_more_combinations_than_can_be_found_are_covered_or_told_of():
    """A spike and a slab in each of 8 coordinates: 256 modes, of which the found ones leave out an eighth."""

    def log_density(p):
        spike, slab = jnp.log(0.85) + norm.logpdf(p["b"], 0.0, 0.05), jnp.log(0.15) + norm.logpdf(p["b"], 3.0, 0.5)
        return jnp.logaddexp(spike, slab).sum()

    posterior = tw.infer(tw.from_function(log_density, {"b": tw.real(8)}), seed=0, steps=300, progress=False)
    is_right = abs(posterior.log_evidence.value) < 0.02
    assert is_right or not posterior.verdict.ok
    assert is_right or "places that are left out" in str(posterior.verdict)
    assert any("particles" in s for s in posterior.steps_taken)
