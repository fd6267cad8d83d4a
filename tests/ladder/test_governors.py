"""Coordinates that govern the spread of others, against densities whose curvature is known."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg._core import counted, counting
from thalweg.bijections import random_orthogonal
from thalweg.ladder._governors import Governors
from thalweg.ladder._modes import Mode
from thalweg.run import Evaluations, Limit

UNBOUNDED = Limit.of(None)
HOLD = np.array([0.5, 0.4, 0.3, 0.2, -0.3])
TURN = np.asarray(random_orthogonal(5, seed=1).matrix.value, float)


def governed(p):
    """v ~ N(0, 1); the rest, turned, ~ N(0, e^(h v)) each."""
    v, x = p["x"][2], jnp.concatenate([p["x"][:2], p["x"][3:]])
    return norm.logpdf(v) + norm.logpdf(TURN.T @ x, 0.0, jnp.exp(HOLD * v)).sum()


def alike(p):
    return norm.logpdf(p["x"]).sum()


def torn(p):
    return governed(p) + 0 * jnp.sqrt(p["x"][2] + 0.5)


@functools.cache
def found(log_density, loc=0.0):
    target = tw.from_function(log_density, {"x": tw.real(6)})
    return Governors.of(target, Mode(np.full(6, loc), np.eye(6)), np.random.default_rng(0), UNBOUNDED)


def test_the_scale_of_others_governs_them():
    assert found(governed).which.tolist() == [2]
    assert found(alike) is None


def test_its_coordinates_are_the_gaussians_and_the_first_decide_those_that_govern():
    matrix = found(governed).matrix
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(6), atol=1e-10)
    np.testing.assert_allclose(matrix[2, 1:], 0, atol=1e-12)
    assert abs(matrix[2, 0]) == pytest.approx(1)


def test_the_others_lie_along_the_axes_of_what_is_governed():
    """Each of its own hold: up to sign and order they are the turn's columns."""
    rest = np.delete(found(governed).matrix, 2, axis=0)[:, 1:]
    overlap = np.abs(TURN.T @ rest)
    np.testing.assert_allclose(np.sort(overlap, axis=0)[-1], 1, atol=1e-3)
    assert sorted(overlap.argmax(0).tolist()) == [0, 1, 2, 3, 4]


def test_of_a_correlated_gaussian_too():
    tril = np.tril(0.2 * np.ones((6, 6))) + 0.5 * np.eye(6)

    def log_density(p):
        return governed({"x": jnp.linalg.solve(jnp.asarray(tril), p["x"])})

    target = tw.from_function(log_density, {"x": tw.real(6)})
    governors = Governors.of(target, Mode(np.zeros(6), tril), np.random.default_rng(0), UNBOUNDED)
    np.testing.assert_allclose(governors.matrix @ governors.matrix.T, tril @ tril.T, atol=1e-10)
    first = len(governors.which)
    np.testing.assert_allclose(governors.matrix[governors.which][:, first:], 0, atol=1e-12)


def test_a_coordinate_along_which_the_curvature_is_not_a_number_is_passed_over():
    assert 2 not in found(torn).which


def test_they_are_not_looked_for_beyond_the_budget():
    target = tw.from_function(governed, {"x": tw.real(6)})
    with counting():
        limit = Limit.of(Evaluations(10))
        assert Governors.of(target, Mode(np.zeros(6), np.eye(6)), np.random.default_rng(0), limit) is None
        # one probe along each of six ways, on both sides of it, up and down
        assert counted().total == 24
