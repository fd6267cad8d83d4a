"""A posterior as the next prior, against conjugate updating and against NumPyro's own algorithms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.bijections import AffineTransformer, Coupling, TriangularAffine
from thalweg.distributions import Augmented, StandardNormal, Transformed

numpyro = pytest.importorskip("numpyro")
dist = numpyro.distributions

rng = np.random.default_rng(0)
FIRST, SECOND = rng.normal(2, 1, 20), rng.normal(2, 1, 30)


@pytest.fixture(autouse=True)
def _as_users_write():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def first_look(p, data):
    log_prior = norm.logpdf(p["mu"], 0, 10) + norm.logpdf(jnp.log(p["scale"]), 0, 0.5) - jnp.log(p["scale"])
    return log_prior + norm.logpdf(data["y"], p["mu"], 1).sum()


@pytest.fixture(scope="module")
def posterior():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        target = tw.from_function(first_look, {"mu": tw.real(), "scale": tw.positive()}, {"y": FIRST})
        # the family of the answer, so that the flow is the posterior and not only near it
        flow = Transformed(StandardNormal((2,)), TriangularAffine(np.array([2.0, 0.0]), 0.3 * np.eye(2)))
        return tw.infer(target, flow, steps=600, n_draws=32, progress=False)


def test_is_a_distribution_for_numpyro(posterior):
    earlier = posterior.to_numpyro()
    assert (earlier.batch_shape, earlier.event_shape) == ((), (2,))
    u = earlier.sample(jax.random.key(0), (5000,))
    assert u.shape == (5000, 2)
    params = jax.vmap(earlier.constrain)(u)
    np.testing.assert_allclose(jnp.log(params["scale"]).std(), 0.5, rtol=0.06)
    np.testing.assert_allclose(earlier.log_prob(u[:7]), posterior.flow.log_prob(u[:7]))
    old_key = jax.random.PRNGKey(0)  # what NumPyro's handlers hand on
    assert earlier.sample(old_key).shape == (2,)
    leaves, structure = jax.tree.flatten(earlier)
    again = jax.tree.unflatten(structure, leaves)
    np.testing.assert_array_equal(again.log_prob(u[:2]), earlier.log_prob(u[:2]))


def test_two_looks_are_one_at_all_data(posterior):
    earlier = posterior.to_numpyro()

    def second_look(y):
        params = earlier.constrain(numpyro.sample("earlier", earlier))
        numpyro.deterministic("mu", params["mu"])
        numpyro.sample("y", dist.Normal(params["mu"], 1), obs=y)

    target = tw.from_numpyro(second_look, SECOND)
    draws = tw.infer(target, progress=False).resample(20_000)
    everything = np.concatenate([FIRST, SECOND])
    precision = len(everything) + 1 / 100
    assert abs(draws["mu"].mean() - everything.sum() / precision) * np.sqrt(precision) < 0.05
    assert draws["mu"].std() * np.sqrt(precision) == pytest.approx(1, abs=0.03)


def test_a_density_that_is_only_bounded_is_refused(posterior):
    flow = Augmented(
        Transformed(StandardNormal((3,)), Coupling(3, AffineTransformer())),
        Transformed(StandardNormal((1,)), Coupling(1, AffineTransformer(), context_size=2)),
    )
    with pytest.raises(ValueError, match="`flow` must have a density for to_numpyro, got Augmented"):
        dataclasses.replace(posterior, flow=flow).to_numpyro()
