"""Posterior means and sds from 10,000 corrected draws, against posteriordb's reference draws."""

import jax
import numpy as np
import pytest

import thalweg as tw
from posteriordb_models import MODELS, RECORDS, as_matrix, make


@pytest.fixture(autouse=True)
def _as_users_write():
    """Users' log densities promote ranks and types; the package itself is held to be strict elsewhere."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if "radon" not in name])  # an example is radon
def test_means(name):
    record = RECORDS[name]
    with jax.enable_x64(False):
        posterior = tw.infer(make(name), seed=0, progress=False)
        draws = as_matrix(name, posterior.resample(10_000, seed=1))
    mean, sd = np.asarray(record["mean"]), np.asarray(record["sd"])
    assert posterior.verdict.ok, posterior.verdict
    assert np.max(np.abs(draws.mean(0) - mean) / sd) < 0.1
    assert np.max(np.abs(np.log(draws.std(0) / sd))) < np.log(1.1)
