"""Angles and directions: the cut that opens them does not go through the mass."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import thalweg as tw
from thalweg.ladder import turned
from thalweg.targets import find_start


def von_mises(kappa, mean, support):
    log_z = float(np.log(2 * np.pi * special.ive(0, kappa)) + kappa)
    return tw.from_function(lambda p: (kappa * jnp.cos(p["t"] - mean) - log_z).sum(), {"t": support})


@pytest.mark.parametrize(("kappa", "mean"), [(30.0, 2.8), (10.0, 2.2), (30.0, np.pi), (4.0, 0.0)])
def test_von_mises(kappa, mean):
    posterior = tw.infer(von_mises(kappa, mean, tw.circular()), seed=0, progress=False)
    evidence = posterior.log_evidence
    assert posterior.verdict.ok
    assert abs(evidence.value) < 4 * evidence.standard_error
    t = posterior.resample(20_000, seed=1)["t"]
    resultant = np.exp(1j * t).mean() * np.exp(-1j * mean)
    assert abs(resultant - special.ive(1, kappa) / special.ive(0, kappa)) < 0.01
    assert np.all(np.abs(t) <= np.pi + 1e-6)


def test_von_mises_fisher():
    kappa, mu = 20.0, np.array([-1.0, -1.0, 1.0]) / np.sqrt(3)
    log_z = float(np.log(2 * np.pi / kappa) + kappa + np.log1p(-np.exp(-2 * kappa)))
    target = tw.from_function(lambda p: kappa * p["v"] @ jnp.asarray(mu) - log_z, {"v": tw.unit_vector(3)})
    posterior = tw.infer(target, seed=0, progress=False)
    evidence = posterior.log_evidence
    assert posterior.verdict.ok
    assert abs(evidence.value) < 4 * evidence.standard_error
    v = posterior.resample(50_000, seed=1)["v"]
    assert (v @ mu).mean() == pytest.approx(1 / np.tanh(kappa) - 1 / kappa, abs=2e-3)
    # beyond the half plane through the poles that cuts the sphere where nobody has turned it
    beyond = np.mean(np.arctan2(v[:, 2], v[:, 1]) < -np.pi / 2)
    assert beyond == pytest.approx(0.0040, abs=0.0012)


def test_each_of_a_batch_has_a_cut_of_its_own():
    target = von_mises(8.0, jnp.asarray([3.0, 0.1, -2.5]), tw.circular(3))
    new = turned(target, find_start(target, 0).points)
    cut = np.angle(np.exp(1j * (new.space.turns["t"] + np.pi - np.array([3.0, 0.1, -2.5]))))
    assert np.all(np.abs(cut) > 2.5)


def test_what_has_no_direction_stays():
    target = tw.from_function(lambda p: 0.0 * p["t"], {"t": tw.circular()})
    np.testing.assert_array_equal(turned(target, find_start(target, 0).points).space.turns["t"], 0.0)
    real = tw.from_function(lambda p: -(p["x"] ** 2), {"x": tw.real()})
    assert turned(real, np.zeros((1, 1))) is real


def test_a_file_knows_its_cut(tmp_path):
    target = von_mises(30.0, 2.8, tw.circular())
    posterior = tw.infer(target, seed=0, progress=False)
    again = tw.load(posterior.save(tmp_path / "t.thalweg"), target)
    draws = posterior.resample(100, seed=3)
    np.testing.assert_array_equal(again.resample(100, seed=3)["t"], draws["t"])
    np.testing.assert_array_equal(again.log_prob(draws), posterior.log_prob(draws))
