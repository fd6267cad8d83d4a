"""NumPyro models on another R^d, against NumPyro's own reparametrisation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import thalweg as tw
from thalweg.posterior import load
from thalweg.targets import from_numpyro

numpyro = pytest.importorskip("numpyro")
dist = numpyro.distributions
scan = pytest.importorskip("numpyro.contrib.control_flow").scan

Y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def schools(sigma, y):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def many_kinds():
    scale = numpyro.sample("scale", dist.LogNormal(0, 1))
    turn = numpyro.sample("turn", dist.LKJCholesky(3, 2.0))
    together = numpyro.sample("together", dist.MultivariateNormal(scale, scale_tril=scale * turn))
    numpyro.sample("walk", dist.GaussianRandomWalk(scale, num_steps=5))
    rows = numpyro.sample("rows", dist.StudentT(5.0, together, scale).expand([2, 3]).to_event(2))
    numpyro.sample("positive", dist.LogNormal(rows[0], scale).to_event(1))
    numpyro.sample("fixed", dist.Normal(together[0], 2.0))


def looped(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(last, y_now):
        now = numpyro.sample("x", dist.Normal(last, scale))
        numpyro.sample("y", dist.Normal(now, 1.0), obs=y_now)
        return now, None

    scan(step, 0.0, y)


def flat(y):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


def measured(target):
    return [n for n, s in zip(target.names, target.noncentred.space.supports, strict=True) if s.around is not None]


def test_the_density_is_that_of_numpyro_s_own_reparametrisation():
    target = from_numpyro(schools, SIGMA, Y).noncentred
    reparam = numpyro.infer.reparam.LocScaleReparam(0)
    model = numpyro.handlers.reparam(schools, config={"theta": reparam})
    mu, tau, z = 1.5, 3.0, np.linspace(-1.0, 2.0, 8)
    potential = numpyro.infer.util.potential_energy(
        model, (SIGMA, Y), {}, {"mu": mu, "tau": np.log(tau), "theta_decentered": z}
    )
    u = jnp.concatenate([jnp.array([mu, np.log(tau)]), z])
    assert np.isclose(eqx.filter_jit(target.log_density)(u), -potential)
    np.testing.assert_allclose(eqx.filter_jit(target.constrain)(u)[0]["theta"], mu + tau * z)


def test_a_scale_far_below_the_location_leaves_the_standard_numbers_their_density():
    """mu + tau z is mu there, in any precision."""

    def model():
        mu = numpyro.sample("mu", dist.Normal(1, 1))
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        with numpyro.handlers.scale(scale=0.5), numpyro.plate("n", 6):
            numpyro.sample("x", dist.StudentT(4.0, mu, tau))
            numpyro.sample("masked", dist.Normal(mu, tau).mask(jnp.arange(6) < 4))
        numpyro.sample("v", dist.MultivariateNormal(mu, tau * jnp.eye(3)))

    target = from_numpyro(model).noncentred
    assert target.space.noncentred == ("x", "masked", "v")
    u = jnp.asarray(np.random.default_rng(0).normal(0, 1, target.size))

    @jax.jit
    def at(log_tau):
        return target.log_density(u.at[1].set(log_tau))

    near, far = -6.0, -45.0
    # times log tau: its own log-determinant; of x 6 less 6 / 2 densities; of what is masked 6 less 4 / 2; of v 0
    own = norm.logpdf(np.exp(far)) - norm.logpdf(np.exp(near)) + (1 + 3 + 4) * (far - near)
    assert np.isclose(at(far) - at(near), own, atol=0.05)


def test_vectors_walks_and_logarithms_are_measured_from_what_they_are_drawn_around():
    target = from_numpyro(many_kinds)
    other = target.noncentred
    assert measured(target) == ["together", "walk", "rows", "positive"]
    u = jnp.asarray(np.random.default_rng(0).normal(0, 0.5, target.size))

    @jax.jit
    def look(u):
        """All at once: JAX would compile what it runs alone one by one."""
        params, _ = other.constrain(u)
        there = target.unconstrain(params)
        jacobian = jax.jacfwd(lambda u: target.unconstrain(other.constrain(u)[0]))(u)
        change = jnp.linalg.slogdet(jacobian)[1]
        return params, other.unconstrain(params), other.log_density(u), target.log_density(there) + change

    params, back, here, expected = look(u)
    np.testing.assert_allclose(back, u, atol=1e-9)
    scale, z = params["scale"], {n: u[s] for n, s in other.space.slices.items()}
    np.testing.assert_allclose(params["together"], scale + scale * params["turn"] @ z["together"])
    np.testing.assert_allclose(params["walk"], scale * np.cumsum(z["walk"]))
    np.testing.assert_allclose(params["rows"], params["together"][None] + scale * z["rows"].reshape(2, 3))
    np.testing.assert_allclose(params["positive"], np.exp(params["rows"][0] + scale * z["positive"]))
    np.testing.assert_allclose(params["fixed"], z["fixed"])
    assert np.isclose(here, expected)


def test_no_other_space_where_no_scale_is_drawn_or_a_loop_feeds_on_itself():
    assert from_numpyro(flat, Y).noncentred is None
    assert from_numpyro(looped, Y[:4]).noncentred is None
    assert from_numpyro(schools, SIGMA, Y).noncentred.noncentred is None


def test_a_saved_posterior_finds_its_space_again(tmp_path):
    target = from_numpyro(schools, SIGMA, Y)
    posterior = tw.infer(target.noncentred, "gaussian", dtype="float64", progress=False)
    file = posterior.save(tmp_path / "posterior.thalweg")
    for given in (target, target.noncentred):
        again = load(file, given)
        np.testing.assert_array_equal(again.sample(5)["theta"], posterior.sample(5)["theta"])
