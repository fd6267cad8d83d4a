"""Bands and p-values of ranks against simulation with other numbers, and the binomial they are made of."""

import numpy as np
import pytest
from scipy import stats

from thalweg.diagnostics import ecdf, ecdf_band, uniformity


@pytest.mark.parametrize(("n", "level"), [(20, 0.95), (100, 0.95), (100, 0.8), (1000, 0.95)])
def test_the_band_holds_all_points_at_once(n, level):
    band = ecdf_band(n, level)
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(2000):
        shares = ecdf(rng.random(n), band.at)
        inside.append(np.all((band.low <= shares) & (shares <= band.high)))
    # counts are whole numbers: the chance may be a little above the level
    assert level - 0.02 < np.mean(inside) < level + 0.045


def test_p_values_are_even_where_ranks_are_and_small_where_not():
    rng = np.random.default_rng(8)
    p = [uniformity(rng.random(100)) for _ in range(600)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    for wrong in (rng.beta(2, 2, 200), rng.beta(0.5, 0.5, 200), rng.beta(1.6, 1, 200)):
        assert uniformity(wrong) < 0.01
    assert uniformity(np.zeros(50)) == pytest.approx(1 / 10_001)


def test_ecdf():
    np.testing.assert_allclose(ecdf(np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.0, 0.1, 0.5, 1.0])), [0, 0.25, 0.75, 1])


def test_messages():
    with pytest.raises(ValueError, match=r"`pit` must hold numbers in \[0, 1\]"):
        uniformity(np.array([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"`level` must lie between 0 and 1, got 1\.0"):
        ecdf_band(10, 1.0)
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 1"):
        ecdf_band(0)
