"""Particles led to a target against moments and masses in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg import problems
from thalweg.ladder._fits import Budget
from thalweg.ladder._modes import Fitted, Mode
from thalweg.ladder._tempered import temper
from thalweg.run import Limit, Progress


def budget(limit=None):
    return Budget(Limit.of(limit), Progress(show=False), None)


def known(loc, scale):
    return Fitted([Mode(np.array(loc, float), scale * np.eye(len(loc)))], np.zeros(1))


def test_masses_of_two_modes_of_which_one_is_known():
    """.7 N(-4, 1) + .3 N(4, .5^2) in the first coordinate, N(1, 2^2) in the second."""

    def log_density(p):
        x, y = p["x"]
        both = jnp.logaddexp(jnp.log(0.7) + norm.logpdf(x, -4, 1), jnp.log(0.3) + norm.logpdf(x, 4, 0.5))
        return both + norm.logpdf(y, 1, 2)

    target = tw.from_function(log_density, {"x": tw.real(2)})
    u, sentence = temper(target, known([-4, 1], 2.0), jax.random.key(0), budget())
    right = u[:, 0] > 0
    # resampled a few times, they are worth fewer than their number
    assert right.mean() == pytest.approx(0.3, abs=0.05)
    for x, mean, sd in ((u[right, 0], 4, 0.5), (u[~right, 0], -4, 1), (u[:, 1], 1, 2)):
        assert x.mean() == pytest.approx(mean, abs=0.1 * sd)
        assert x.std() == pytest.approx(sd, rel=0.07)
    assert "4,000 particles led from a wide Student-t to the target" in sentence


def test_where_there_is_no_density_none_stay():
    """An exponential beyond a wall that the space does not know of."""
    target = tw.from_function(lambda p: jnp.where(p["x"] > 0, -p["x"], -jnp.inf), {"x": tw.real()})
    u, _ = temper(target, known([1.0], 1.0), jax.random.key(1), budget())
    assert (u > 0).all()
    assert [u.mean(), u.std()] == pytest.approx([1, 1], abs=0.1)


def test_a_budget_stops_them_on_the_way():
    _, sentence = temper(problems.many_well(6).target, known(np.zeros(6), 1.0), jax.random.key(0), budget(1e-6))
    assert "in 1 steps, which ended on the way (exponent 0." in sentence


@pytest.mark.slow
def test_forty_modes():
    """Too many for a flow each: 40 normals in [-40, 40]^2."""
    problem = problems.gmm40()
    posterior = tw.infer(problem.target, seed=2, progress=False)
    assert posterior.verdict.ok
    assert any("particles" in s for s in posterior.steps_taken)
    estimate = posterior.log_evidence
    assert abs(estimate.value) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.02
    assert problem.coverage(posterior.resample(20_000, seed=1)["x"]) > 0.99


@pytest.mark.slow
def test_a_log_density_of_minus_1e12_far_out_does_not_leave_one_particle():
    """N(1, 1e-5^2 I) in three coordinates, from all over: the first part of the way is one in 1e12."""
    target = tw.from_function(lambda p: norm.logpdf(p["x"], 1.0, 1e-5).sum(), {"x": tw.real(3)})
    u, sentence = temper(target, known(np.ones(3), 5.0), jax.random.key(0), budget())
    assert "and moved 15 times" in sentence
    np.testing.assert_allclose(u.std(0), 1e-5, rtol=0.1)
    np.testing.assert_allclose(u.mean(0), 1.0, atol=1e-6)
