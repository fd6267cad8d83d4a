"""Evaluations of the log density are counted wherever they are made."""

import jax
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg._core import counted, counting
from thalweg.fit import Fit, GaussianFit
from thalweg.mcmc import Bounds, independence_chains, latent_chains
from thalweg.objectives import ReverseKL
from thalweg.run import Checkpoint, Evaluations, Limit, Progress, run
from thalweg.targets import log_density_of_rows, value_and_score_of_rows

TARGET = tw.from_function(lambda params: norm.logpdf(params["x"]).sum(), {"x": tw.real(2)})
KEY = jax.random.key(0)


def test_rows():
    u = np.zeros((7, 2))
    with counting():
        log_density_of_rows(TARGET, u)
        value_and_score_of_rows(TARGET, u[:3])
        assert counted() == (7, 3)
        assert counted().total == 10
        with counting():
            assert counted() == (0, 0)


def test_fits_and_what_a_checkpoint_restores(tmp_path):
    file = tmp_path / "c.thalweg"
    flow = Fit(ReverseKL(TARGET, 16), learning_rate=1e-3, window=None)
    gaussian = GaussianFit(TARGET, n_pairs=10)
    for resume in (False, True):
        kept = Checkpoint(file, {}, resume=resume)
        with counting():
            run(flow, flow.init(tw.make_flow("realnvp", 2)), KEY, steps=100, checkpoint=kept)
            assert counted() == (0, 1600)
            start = gaussian.init(np.zeros((3, 2)))
            done = len(run(gaussian, start, KEY, steps=200, name="start", checkpoint=kept).history["elbo"])
            assert counted() == (0, 1600 + done * 3 * 20)


def test_chains():
    flow, bounds = tw.make_flow("gaussian", 2), Bounds(Progress(show=False), Limit.of(None))
    u = np.zeros((4, 2))
    with counting():
        independence_chains(flow, TARGET, (u, np.zeros(4)), 30, KEY, bounds)
        # every fifth state is kept
        assert counted() == (4 * 30 * 5, 0)
    with counting():
        latent_chains(flow, TARGET, u, 30, KEY, bounds)
        # 300 trajectories to adapt, 30 kept, of at least one leapfrog step each
        assert counted().values == 0
        assert 4 * 330 <= counted().gradients <= 4 * 330 * 256


def test_a_limit():
    with counting():
        limit = Limit.of(Evaluations(10))
        assert limit.used == 0
        log_density_of_rows(TARGET, np.zeros((5, 2)))
        assert limit.used == 0.5
        assert not limit.is_over
        log_density_of_rows(TARGET, np.zeros((5, 2)))
        assert limit.is_over
        assert Limit.of(limit) is limit
        assert Limit.of(Evaluations(10)).used == 0
        assert Limit.of(None).used == 0
    for wrong in (0, -3):
        with pytest.raises(ValueError, match="`n` must be a whole number of at least 1"):
            Evaluations(wrong)
