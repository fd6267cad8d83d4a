"""Recipes by name: cheap to build, the Gaussian at the start, compiled in a time that layers do not change."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from helpers import count_compiles, count_equations
from thalweg.flows import EXACT_FLOWS, INDEXED, make_flow

LOC = np.array([1.0, -2.0, 0.5])
FACTOR: Any = np.array([[1.2, 0, 0], [0.4, 0.7, 0], [-0.6, 0.9, 0.8]])

names = pytest.mark.parametrize("name", (*EXACT_FLOWS, "cif-realnvp", "cif-iaf"))


@names
def test_building_compiles_nothing(name):
    jax.clear_caches()
    with count_compiles() as compiles:
        make_flow(name, 3, loc=LOC, scale_tril=FACTOR)
    assert compiles.count == 0


def test_bnaf_starts_near_its_gaussian():
    q = make_flow("bnaf", 3, loc=LOC, scale_tril=FACTOR)
    x, log_q = (np.asarray(a) for a in eqx.filter_jit(q.sample_and_log_prob)(0, 4000))
    covariance: Any = FACTOR @ FACTOR.T
    gap = log_q - stats.multivariate_t.logpdf(x, LOC, covariance, df=30)
    assert abs(gap.mean()) < 0.01 and gap.std() < 0.2


def test_layers_see_coordinates_along_the_axes():
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    turned: Any = make_flow("spline", 3, loc=LOC, scale_tril=FACTOR, axes=axes, seed=1).bijection
    plain: Any = make_flow("spline", 3, seed=1).bijection
    (stack, turn, last), (straight, _) = turned.bijections, plain.bijections
    z = jnp.array([0.3, -0.8, 1.1])
    np.testing.assert_allclose(stack.forward(z), straight.forward(z), rtol=1e-6)
    np.testing.assert_allclose(turn.forward(z), axes @ z, rtol=1e-5)
    np.testing.assert_allclose(last.forward(z), LOC + FACTOR @ z, rtol=1e-5)
    with pytest.raises(ValueError, match="`matrix` must be square and orthogonal"):
        make_flow("spline", 3, axes=2 * np.eye(3))


@pytest.mark.parametrize("name", [n for n in EXACT_FLOWS if n != "bnaf"])
def test_it_starts_as_its_gaussian(name):
    q = make_flow(name, 3, loc=LOC, scale_tril=FACTOR, layers=2, width=8, seed=1)
    x = 2 * np.random.default_rng(0).standard_normal((20, 3))
    covariance: Any = FACTOR @ FACTOR.T
    expected = stats.multivariate_t.logpdf(x, LOC, covariance, df=30)
    np.testing.assert_allclose(eqx.filter_jit(q.log_prob)(jnp.asarray(x)), expected, rtol=1e-9)


@pytest.mark.parametrize("name", [n for n in EXACT_FLOWS if n != "gaussian"])
def test_what_is_compiled_does_not_grow_with_layers(name):
    def equations(layers):
        moving, rest = eqx.partition(make_flow(name, 3, layers=layers, width=8), eqx.is_inexact_array)
        return count_equations(
            lambda m, x: jax.grad(lambda m: eqx.combine(m, rest).log_prob(x))(m), moving, jnp.ones(3)
        )

    assert equations(2) == equations(12)


@names
@pytest.mark.parametrize("size", [1, 2])
def test_small_sizes(name, size):
    q = make_flow(name, size, layers=2, width=4)
    out = eqx.filter_eval_shape(lambda q: q.sample_and_log_q(0, 5), q)
    assert [leaf.shape for leaf in out] == [(5, size), (5,)]


@pytest.mark.parametrize("name", ["realnvp", "iaf"])
def test_an_indexed_one_starts_as_the_flow_it_wraps(name):
    flow, indexed = (make_flow(n, 3, loc=LOC, scale_tril=FACTOR, layers=2, seed=1) for n in (name, INDEXED + name))
    x, log_q = eqx.filter_jit(lambda q: q.sample_and_log_q(0, 20))(indexed)
    np.testing.assert_allclose(log_q, eqx.filter_jit(flow.log_prob)(x), rtol=1e-9)


def test_messages():
    with pytest.raises(ValueError, match=r"`flow` must be one of .*, got 'splines'; did you mean 'spline'\?"):
        make_flow("splines", 3)
    with pytest.raises(ValueError, match="`size` must be a whole number of at least 1, got 0"):
        make_flow("iaf", 0)
    with pytest.raises(ValueError, match=r"`loc` must have shape \(3,\)|`scale_tril` must be"):
        make_flow("iaf", 3, loc=np.zeros(2))
