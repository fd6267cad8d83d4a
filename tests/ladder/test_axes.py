"""Independent directions, against sources that were mixed by a known rotation."""

import numpy as np
import pytest
from scipy import stats

from thalweg.ladder._axes import independent_axes

N, D = 20_000, 8


def _turn():
    return np.linalg.qr(np.random.default_rng(7).standard_normal((D, D)))[0]


@pytest.mark.parametrize("source", [stats.laplace(scale=2**-0.5), stats.uniform(-(3**0.5), 2 * 3**0.5)])
def test_the_directions_of_sources_are_found(source):
    x = source.rvs((N, D), random_state=np.random.default_rng(0))
    axes = independent_axes(x @ _turn().T, np.random.default_rng(1))
    np.testing.assert_allclose(axes.T @ axes, np.eye(D), atol=1e-6)
    # each is one of the sources' directions, up to its sign
    match = np.abs(axes.T @ _turn())
    assert match.max(axis=1).min() > 0.99
    assert sorted(match.argmax(axis=1)) == list(range(D))


def test_normal_draws_and_heavy_tails_give_some_rotation():
    rng = np.random.default_rng(0)
    for z in (rng.standard_normal((500, D)), rng.standard_cauchy((500, D))):
        axes = independent_axes(z, rng)
        np.testing.assert_allclose(axes.T @ axes, np.eye(D), atol=1e-6)
