"""Targets with several matrix factorisations: the same numbers as one point at a time, and no deadlock."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.mcmc._blackjax import tune_hamiltonian

N = 12


def two_kernels(p, data):
    """Two Gaussian processes, one seen with noise."""
    rough = p["a"] ** 2 * jnp.exp(-data["d"] / p["b"]) + 1e-2 * jnp.eye(N)
    smooth = jnp.exp(-((data["d"] / p["a"]) ** 2)) + 1e-2 * jnp.eye(N)
    value = jax.scipy.stats.multivariate_normal.logpdf(data["y"], jnp.zeros(N), rough + smooth)
    return value - jnp.linalg.slogdet(smooth)[1] - p["a"] ** 2 - p["b"] ** 2


def one_matrix(p, data):
    return jax.scipy.stats.multivariate_normal.logpdf(p["x"], jnp.zeros(3), data["c"] + jnp.exp(p["s"]) * jnp.eye(3))


@pytest.fixture
def data():
    x = np.linspace(0, 1, N)
    return {"d": np.abs(x[:, None] - x), "y": np.sin(5 * x)}


def test_who_takes_turns(data):
    assert tw.from_function(two_kernels, {"a": tw.positive(), "b": tw.positive()}, data).takes_turns
    supports = {"x": tw.real(3), "s": tw.real()}
    assert not tw.from_function(one_matrix, supports, {"c": np.eye(3)}).takes_turns
    assert not tw.from_function(lambda p: -(p["x"] ** 2), {"x": tw.real()}).takes_turns


@jax.custom_jvp
def outside(x):
    """-x^2 / 2, by NumPy."""
    return jax.pure_callback(
        lambda x: -0.5 * np.asarray(x) ** 2, jax.ShapeDtypeStruct((), x.dtype), x, vmap_method="expand_dims"
    )


@outside.defjvp
def _(primals, tangents):
    return outside(*primals), -primals[0] * tangents[0]


def test_who_runs_alone():
    """A callback waits for the pool that it runs in to copy its arguments."""
    target = tw.from_function(lambda p: outside(p["x"]) + outside(p["y"] - 1), {"x": tw.real(), "y": tw.real()})
    assert target.runs_alone
    assert not target.takes_turns
    assert of_covariance(20).runs_alone
    assert not of_covariance(2).runs_alone
    posterior = tw.infer(target, progress=False)
    assert abs(posterior.log_evidence.value - np.log(2 * np.pi)) < 4 * posterior.log_evidence.standard_error + 1e-6


def of_covariance(n, batch=()):
    """A log density with one factorisation of n x n, or a batch of them."""

    def log_density(p):
        scale = jnp.broadcast_to(jnp.exp(p["s"]), (*batch, n, n))
        lower = jnp.linalg.cholesky(jnp.broadcast_to(jnp.eye(n), scale.shape) * scale + 0.5)
        return jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)).sum() - p["s"] ** 2

    return tw.from_function(log_density, {"s": tw.real()})


@pytest.mark.parametrize(("n", "batch", "takes"), [(2, (), False), (5, (), False), (5, (20,), True), (20, (), True)])
def test_one_factorisation_takes_turns_where_a_batch_of_it_would_go_to_the_pool(n, batch, takes):
    assert of_covariance(n, batch).takes_turns == takes


def test_nothing_runs_beside_one_that_takes_turns(monkeypatch):
    """Two programs that hand batches to the pool wait for each other for ever, on two cores."""
    begun = []
    monkeypatch.setattr(sys.modules["thalweg.infer"], "ahead", lambda work: begun.append(work))
    monkeypatch.setattr("thalweg.ladder._ascent.ahead", lambda work: begun.append(work))
    tw.infer(of_covariance(20), "realnvp", steps=2, progress=False)
    assert not begun
    tw.infer(of_covariance(2), "realnvp", steps=2, progress=False)
    assert begun


def test_chains_step_through_it_though_its_supports_have_ends(data, getkey):
    # their ends are arrays of the target, which a loop in a loop must not close over
    target = tw.from_function(two_kernels, {"a": tw.positive(), "b": tw.positive()}, data)
    chains = eqx.filter_jit(lambda target, u, key: tune_hamiltonian(target.log_density, u, key, 3)[0])
    moved = chains(target, jnp.zeros((4, 2)), getkey())
    assert bool(jnp.isfinite(moved).all())
    assert bool((moved != 0).all())


def test_values_and_derivatives(data, getkey):
    target = tw.from_function(two_kernels, {"a": tw.positive(), "b": tw.positive()}, data)
    plain = target.changed(takes_turns=False)
    u = jax.random.normal(getkey(), (5, 2))

    def look(t):
        def one(u):
            return t.log_density(u)

        def of_data(y):
            return jax.vmap(lambda u: t.log_density(u, {**t.data, "y": y}))(u).sum()

        def through_batch(u):
            return jax.vmap(one)(u).sum()

        return (
            jax.vmap(jax.value_and_grad(one))(u),
            jax.grad(through_batch)(u),
            jax.vmap(jax.hessian(one))(u),
            jax.grad(of_data)(t.data["y"]),
            jax.vmap(one, in_axes=1)(u.T),
        )

    together, alone = jax.jit(look)(target), [look_one(plain, x) for x in u]
    (value, slope), again, curvature, of_y, transposed = together
    np.testing.assert_allclose(value, [a[0] for a in alone], rtol=1e-12)
    np.testing.assert_allclose(transposed, value, rtol=1e-12)
    np.testing.assert_allclose(slope, [a[1] for a in alone], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(again, slope, rtol=1e-12)
    np.testing.assert_allclose(curvature, [a[2] for a in alone], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(of_y, np.sum([a[3] for a in alone], axis=0), rtol=1e-9, atol=1e-9)


@eqx.filter_jit
def look_one(target, u):
    """One point, in batches of none."""
    value, slope = jax.value_and_grad(target.log_density)(u)
    of_y = jax.grad(lambda y: target.log_density(u, {**target.data, "y": y}))(target.data["y"])
    return value, slope, jax.jacfwd(jax.grad(target.log_density))(u), of_y


@pytest.mark.slow
def test_no_deadlock():
    """On two cores JAX hangs in `jax.vmap(jax.grad(...))` of two factorisations, of 12 x 12 matrices too."""
    code = """
import numpy as np, jax.numpy as jnp, thalweg as tw
n = 12
d = np.abs(np.subtract.outer(np.linspace(0, 1, n), np.linspace(0, 1, n)))
def f(p, data):
    a, b = (jnp.exp(-data / p[k]) + 1e-2 * jnp.eye(n) for k in "ab")
    half = sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(x))).sum() for x in (a, b))
    return half - jnp.log(p["a"]) ** 2 - jnp.log(p["b"]) ** 2 + 3 * jnp.cos(p["t"] - 3)
target = tw.from_function(f, {"a": tw.positive(), "b": tw.positive(), "t": tw.circular()}, d)
print(tw.infer(target, seed=0, progress=False).verdict.ok)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "True"
