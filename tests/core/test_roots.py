"""Monotone scalar roots: found, and differentiated, to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import scipy_root
from thalweg._core import increasing_root


def test_against_scipy():
    rng = np.random.default_rng(0)
    a, b, y = rng.uniform(-0.999, 5, 50), rng.normal(0, 3, 50), rng.normal(0, 5, 50)

    def one(a, b, y):
        return increasing_root(lambda x: x + a * jnp.tanh(x + b) - y, y - 6, y + 6)

    roots = jax.jit(jax.vmap(one))(*map(jnp.asarray, (a, b, y)))
    expected = [
        scipy_root(lambda x, a=a, b=b, y=y: x + a * np.tanh(x + b) - y, y - 6, y + 6)
        for a, b, y in zip(a, b, y, strict=True)
    ]
    np.testing.assert_allclose(roots, expected, atol=1e-9)


@pytest.mark.parametrize("power", [1, 3, 9])
def test_flat_roots_and_roots_at_the_ends(power):
    def root(y, low, high):
        return increasing_root(lambda x: x**power - y, jnp.asarray(low), jnp.asarray(high))

    np.testing.assert_allclose(jax.jit(root)(2.0**power, -4.0, 10.0), 2, rtol=1e-12)
    assert abs(float(jax.jit(root)(0.0, -1.0, 3.0))) < 0.02  # x^9 is 0 to rounding on a whole interval
    np.testing.assert_allclose(jax.jit(root)(1.0, 1.0, 3.0), 1, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(root)(27.0**power, 0.0, 27.0), 27, rtol=1e-12)


def solve(theta):
    # x^3 + theta_0 x = theta_1
    return increasing_root(lambda x: x**3 + theta[0] * x - theta[1], jnp.asarray(-10.0), jnp.asarray(10.0))


def test_implicit_derivatives_against_finite_differences_and_the_formula():
    theta = jnp.asarray([1.3, 4.0])
    x = float(solve(theta))
    slope = 3 * x**2 + 1.3
    exact = np.array([-x / slope, 1 / slope])
    np.testing.assert_allclose(jax.jit(jax.grad(solve))(theta), exact, rtol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(solve))(theta), exact, rtol=1e-10)

    h = 1e-5
    steps = h * np.eye(2)
    numeric = [float(solve(theta + s) - solve(theta - s)) / (2 * h) for s in steps]
    np.testing.assert_allclose(numeric, exact, rtol=1e-7)


def test_second_derivatives():
    theta = jnp.asarray([1.3, 4.0])
    gradient = jax.jit(jax.grad(solve))
    h = 1e-5
    numeric = np.stack([(gradient(theta + s) - gradient(theta - s)) / (2 * h) for s in h * np.eye(2)])
    np.testing.assert_allclose(jax.jit(jax.hessian(solve))(theta), numeric, rtol=1e-6, atol=1e-9)


def test_single_precision():
    with jax.enable_x64(False):
        x = jax.jit(lambda y: increasing_root(lambda x: x + jnp.exp(x) - y, y - 20, y + 1))(jnp.float32(1.0))
        assert x.dtype == jnp.float32
        assert abs(float(x)) < 1e-6
