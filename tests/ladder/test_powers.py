"""The powers of tails, against closed forms, and the distribution that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import cauchy, multivariate_normal, norm
from jax.scipy.stats import t as student

import thalweg as tw
from thalweg.distributions import StudentT, TrainableStudentT
from thalweg.ladder._modes import Mode
from thalweg.ladder._powers import Powers, base_of

TRIL = np.array([[1.0, 0.0], [0.6, 0.5]])


def powers(log_density, size=2, scale_tril=None):
    gaussian = Mode(np.full(size, 0.3), np.eye(size) if scale_tril is None else scale_tril)
    target = tw.from_function(lambda p: log_density(p["x"]), {"x": tw.real(size)})
    return Powers.of(target, gaussian, np.random.default_rng(0))


def joint(x, nu=1.5):
    """A multivariate Student-t's log density, up to a constant."""
    z = jax.scipy.linalg.solve_triangular(TRIL, x - 0.3, lower=True)
    return -0.5 * (nu + 2) * jnp.log1p((z**2).sum() / nu)


def test_independent_tails():
    found = powers(lambda x: student.logpdf(x[0], 1.5) + student.logpdf(x[1], 4.0, 2.0, 3.0))
    np.testing.assert_allclose(found.along, [2.5, 5.0], rtol=0.02)
    assert abs(found.out - 7.5) < 0.3
    np.testing.assert_allclose(found.degrees(), [1.5, 4.0], rtol=0.04)
    base = base_of(found.degrees(), 2)
    assert isinstance(base, TrainableStudentT)
    np.testing.assert_allclose(base.degrees_of_freedom, found.degrees(), rtol=1e-6)


def test_joint_tails():
    found = powers(joint, scale_tril=TRIL)
    np.testing.assert_allclose([*found.along, found.out], 3.5, rtol=0.02)
    np.testing.assert_allclose(found.degrees(), 1.5, atol=0.05)
    base = base_of(found.degrees(), 2)
    assert isinstance(base, StudentT)
    assert base.degrees_of_freedom == found.degrees()


def test_one_tail_of_one_side():
    """As of a Cauchy prior where all data say "more"."""
    found = powers(lambda x: cauchy.logpdf(x[0]) - jnp.logaddexp(0.0, -3 * x[0]) + norm.logpdf(x[1]))
    assert abs(found.along[0] - 2.0) < 0.02
    assert found.along[1] > 100
    np.testing.assert_allclose(found.degrees(), [1.0, 30.0], rtol=0.04)


@pytest.mark.parametrize(
    "log_density",
    [
        lambda x: multivariate_normal.logpdf(x, jnp.zeros(2), TRIL @ TRIL.T),
        lambda x: -jnp.abs(x).sum(),
        lambda x: student.logpdf(x, 20.0).sum(),
        lambda x: (2 * x - jnp.exp(x)).sum(),
        lambda x: -0.5 * jnp.log1p(x**2).sum(),
        lambda x: jnp.where((jnp.abs(x) < 50).all(), 0.0, -jnp.inf),
    ],
    ids=["normal", "exponential", "20 degrees of freedom", "no number far out", "improper", "bounded"],
)
def test_none_is_heavy(log_density):
    assert powers(log_density).degrees() is None


@pytest.mark.parametrize("target", ["joint", pytest.param("independent", marks=pytest.mark.slow)])
def test_trusted_with_the_evidence(target):
    log_densities = {
        # its constant is 1 / (2 pi) in two dimensions, whatever nu is
        "joint": lambda x: joint(x) - float(np.log(2 * np.pi * np.prod(np.diagonal(TRIL)))),
        "independent": lambda x: cauchy.logpdf(x, 1.0, 2.0).sum(),
    }
    log_density = log_densities[target]
    posterior = tw.infer(tw.from_function(lambda p: log_density(p["x"]), {"x": tw.real(2)}), progress=False)
    assert posterior.verdict.ok, posterior.verdict
    assert "Student-t's" in posterior.steps_taken[-1]
    assert abs(posterior.log_evidence.value) < 0.02
    # quartiles, since there are no moments: of a Student-t of 1.5 degrees, and of Cauchy's
    x = posterior.resample(20_000, seed=1)["x"]
    if target == "joint":
        z = np.linalg.solve(TRIL, (x - 0.3).T).T
        expected = [-0.8726, 0.0, 0.8726]
    else:
        z, expected = (x - 1) / 2, [-1.0, 0.0, 1.0]
    np.testing.assert_allclose(np.quantile(z, [0.25, 0.5, 0.75], axis=0).T, [expected] * 2, atol=0.06)
