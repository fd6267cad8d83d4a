"""Hessians of many coordinates from a few products, against `jax.hessian`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.targets import mean_hessian, sparsity_of


def _series(n):
    """Stochastic volatility: a chain of states, and two parameters that meet all of them."""

    def log_density(p, data):
        walk = norm.logpdf(p["h"][1:], p["phi"] * p["h"][:-1], p["s"]).sum() + norm.logpdf(p["h"][0])
        prior = norm.logpdf(p["phi"]) + norm.logpdf(p["s"])
        return prior + walk + norm.logpdf(data, 0, jnp.exp(p["h"] / 2)).sum()

    data = np.random.default_rng(0).standard_normal(n)
    return tw.from_function(log_density, {"phi": tw.interval(-1, 1), "s": tw.positive(), "h": tw.real(n)}, data)


def _hierarchy(n):
    """Groups that meet one another by their mean and scale alone."""

    def log_density(p, data):
        prior = norm.logpdf(p["mu"]) + norm.logpdf(p["tau"]) + norm.logpdf(p["b"], p["mu"], p["tau"]).sum()
        return prior + norm.logpdf(data, p["b"]).sum()

    data = np.random.default_rng(0).standard_normal(n)
    return tw.from_function(log_density, {"b": tw.real(n), "mu": tw.real(), "tau": tw.positive()}, data)


@pytest.mark.parametrize(("target", "many", "products"), [(_series(150), [0, 1], 5), (_hierarchy(120), [120, 121], 3)])
def test_a_few_products_tell_the_hessian(target, many, products):
    rng = np.random.default_rng(1)
    found = sparsity_of(target, np.zeros(target.size), rng)
    assert found.many.tolist() == many
    assert len(found.directions) == products
    u = rng.standard_normal((3, target.size))
    exact = np.mean([jax.hessian(target.log_density)(jnp.asarray(row)) for row in u], axis=0)
    hessian = found.matrix(mean_hessian(target, found, u)).toarray()
    np.testing.assert_allclose(hessian, exact, rtol=1e-9, atol=1e-9)


def test_a_dense_hessian_is_left_alone():
    x = np.random.default_rng(0).standard_normal((50, 130))
    target = tw.from_function(lambda p, x: -jnp.logaddexp(0, x @ p["w"]).sum(), {"w": tw.real(130)}, x)
    assert sparsity_of(target, np.zeros(130), np.random.default_rng(0)) is None


def test_a_pattern_that_holds_nearby_alone_is_not_trusted():
    def log_density(p):
        w = p["w"]
        # beyond 0.5 each coordinate meets one far from it
        return norm.logpdf(w).sum() + jnp.where(jnp.abs(w) > 0.5, w * w[::-1], 0.0).sum()

    target = tw.from_function(log_density, {"w": tw.real(130)})
    assert sparsity_of(target, np.zeros(130), np.random.default_rng(0)) is None


def test_without_second_derivatives_there_is_no_pattern():
    def outside(x):
        return np.asarray(-0.5 * (x**2).sum(-1), x.dtype), np.asarray(-x)

    def call(x):
        shapes = jax.ShapeDtypeStruct((), x.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(outside, shapes, x, vmap_method="sequential")

    @jax.custom_vjp
    def log_density(x):
        return call(x)[0]

    log_density.defvjp(call, lambda score, g: (g * score,))
    target = tw.from_function(lambda p: log_density(p["x"]), {"x": tw.real(120)})
    assert sparsity_of(target, np.zeros(120), np.random.default_rng(0)) is None
