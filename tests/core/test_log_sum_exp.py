"""A sum of exponentials against SciPy's."""

import numpy as np
import pytest
from scipy.special import logsumexp

from thalweg._core import log_sum_exp


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
@pytest.mark.parametrize("shift", [0.0, 1e5, -1e5])
def test_as_scipy(axis, shift):
    x = 30 * np.random.default_rng(0).standard_normal((4, 5, 6)) + shift
    x[0, 1, 2] = x[:, 2] = -np.inf
    np.testing.assert_allclose(log_sum_exp(x, axis=axis), logsumexp(x, axis=axis), rtol=1e-14)


def test_ends():
    assert log_sum_exp([-np.inf, -np.inf]) == -np.inf
    assert log_sum_exp([1.0, np.inf]) == np.inf
    assert np.isnan(log_sum_exp([1.0, np.nan]))
    assert isinstance(log_sum_exp([0.0, 0.0]), float)
