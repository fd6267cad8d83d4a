"""The reverse KL: bounds known evidence, is tight at the truth, and its two gradients agree in the mean."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.bijections import Affine, Hyper, TriangularAffine
from thalweg.distributions import Augmented, StandardNormal, Transformed
from thalweg.objectives import ReverseKL

LOG_Z = 1.7
LOC, TRIL = np.array([0.5, -1.0, 2.0]), np.array([[1.0, 0, 0], [0.4, 0.7, 0], [-0.3, 0.2, 1.5]])


def _gaussian_target():
    precision = np.linalg.inv(TRIL @ TRIL.T)
    constant = LOG_Z - 0.5 * 3 * np.log(2 * np.pi) - np.log(np.diagonal(TRIL)).sum()

    def log_density(params):
        e = params["x"] - LOC
        return constant - 0.5 * e @ precision @ e

    return tw.from_function(log_density, {"x": tw.real(3)})


def _flow(loc, tril):
    return Transformed(StandardNormal((3,)), TriangularAffine(loc, tril))


def test_tight_at_the_truth():
    target = _gaussian_target()
    for path in (True, False):
        loss, aux = ReverseKL(target, 10, path=path)(_flow(LOC, TRIL), jax.random.key(0))
        np.testing.assert_allclose(-loss, LOG_Z, rtol=1e-12)
        np.testing.assert_allclose(aux["elbo"], LOG_Z, rtol=1e-12)


def test_equals_the_closed_form_kl():
    loc, tril = LOC + np.array([0.3, -0.2, 0.1]), TRIL * 1.3
    cov, cov_q = TRIL @ TRIL.T, tril @ tril.T
    inverse, e = np.linalg.inv(cov), loc - LOC
    kl = 0.5 * (
        np.trace(inverse @ cov_q) + e @ inverse @ e - 3 + np.linalg.slogdet(cov)[1] - np.linalg.slogdet(cov_q)[1]
    )
    objective = eqx.filter_jit(ReverseKL(_gaussian_target(), 2000, path=False))
    losses = np.array([objective(_flow(loc, tril), jax.random.key(i))[0] for i in range(20)])
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() - (kl - LOG_Z)) < 5 * error
    assert error < 0.1 * kl


def test_gradients_agree_and_the_path_one_is_exact_at_the_truth():
    target = _gaussian_target()

    @eqx.filter_jit
    def gradients(flow, key, path):
        grad = eqx.filter_grad(lambda f: ReverseKL(target, 500, path=path)(f, key)[0])(flow)
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(grad)])

    off = _flow(LOC + 0.2, TRIL * 1.1)
    plain = np.stack([gradients(off, jax.random.key(i), False) for i in range(40)])
    path = np.stack([gradients(off, jax.random.key(100 + i), True) for i in range(40)])
    error = np.sqrt((plain.var(0) + path.var(0)) / 40)
    assert np.all(np.abs(plain.mean(0) - path.mean(0)) <= 5 * error + 1e-12)
    assert np.any(np.abs(path.mean(0)) > 5 * error)
    exact = gradients(_flow(LOC, TRIL), jax.random.key(0), True)
    np.testing.assert_allclose(exact, 0, atol=1e-10)
    assert np.abs(gradients(_flow(LOC, TRIL), jax.random.key(0), False)).max() > 1e-3


def _augmented(exact: bool):
    """A joint Gaussian on R^3 x R whose first three coordinates are the target; r(u | z) exact or a plain normal."""
    tril = np.eye(4)
    tril[:3, :3], tril[3] = TRIL, [0.5, -0.4, 0.3, 0.8]
    joint = Transformed(StandardNormal((4,)), TriangularAffine(np.append(LOC, 0.0), tril))
    hyper = Hyper(Affine(np.zeros(1), np.ones(1)), 3, width=4, depth=0)
    if exact:
        # u | z is normal with mean b'L^-1 (z - loc) and sd 0.8; the context enters linearly
        slope = np.linalg.solve(TRIL.T, tril[3, :3])
        weight = np.zeros((2, 3))
        weight[0] = slope
        bias = np.array([-slope @ LOC, np.log(0.8)])
        hyper = eqx.tree_at(
            lambda h: (h.network.weights[-1], h.network.biases[-1]), hyper, (jnp.asarray(weight), jnp.asarray(bias))
        )
    return Augmented(joint, Transformed(StandardNormal((1,)), hyper))


def test_auxiliary_bound_is_below_and_closes_when_the_reverse_is_exact():
    objective = eqx.filter_jit(ReverseKL(_gaussian_target(), 2000, path=False))
    loose, _ = objective(_augmented(False), jax.random.key(0))
    tight, _ = objective(_augmented(True), jax.random.key(0))
    np.testing.assert_allclose(-tight, LOG_Z, atol=1e-8)
    assert -loose < LOG_Z - 0.05


def test_minibatches_are_unbiased():
    rng = np.random.default_rng(0)
    y = rng.normal(1.0, 1.0, 50)

    def log_prior(params):
        return norm.logpdf(params["mu"])

    def log_likelihood(params, data):
        return norm.logpdf(data["y"], params["mu"], 1.0)

    target = tw.from_likelihood(log_prior, log_likelihood, {"mu": tw.real()}, {"y": y})
    flow = Transformed(StandardNormal((1,)), Affine(np.array([0.9]), np.array([0.2])))
    whole = eqx.filter_jit(ReverseKL(target, 200))
    part = eqx.filter_jit(ReverseKL(target, 200, batch_size=5))
    keys = [jax.random.key(i) for i in range(200)]
    a, b = np.array([whole(flow, k)[0] for k in keys]), np.array([part(flow, k)[0] for k in keys])
    error = np.sqrt((a.var() + b.var()) / len(keys))
    assert abs(a.mean() - b.mean()) < 5 * error
    assert b.std() > 2 * a.std()


@pytest.mark.parametrize("size", [1, 2])
def test_small_dimensions(size):
    target = tw.from_function(lambda p: norm.logpdf(p["x"]).sum(), {"x": tw.real(size)})
    flow = Transformed(StandardNormal((size,)), tw.make_flow("realnvp", size).bijection)
    loss, _ = ReverseKL(target, 10)(flow, jax.random.key(0))
    np.testing.assert_allclose(loss, 0, atol=1e-10)
