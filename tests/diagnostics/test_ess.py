"""Effective sample sizes, R-hat and Monte Carlo errors against arviz-stats and closed forms."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

from thalweg.diagnostics import bulk_ess, importance_ess, mcse_mean, rhat, tail_ess


def autoregressive(chains, length, correlation, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(chains, length))
    values = np.empty_like(noise)
    values[:, 0] = noise[:, 0]
    for t in range(1, length):
        values[:, t] = correlation * values[:, t - 1] + np.sqrt(1 - correlation**2) * noise[:, t]
    return values


CHAINS = {
    "iid": autoregressive(4, 500, 0.0),
    "odd": autoregressive(3, 501, 0.3),
    "slow": autoregressive(4, 1000, 0.95),
    "antithetic": autoregressive(4, 400, -0.8),
    "apart": autoregressive(4, 500, 0.5) + np.arange(4.0)[:, None],
    "heavy": np.exp(3 * autoregressive(2, 300, 0.5)),
    "ties": np.round(autoregressive(4, 300, 0.6)),
    "one": autoregressive(1, 300, 0.5),
    "short": autoregressive(4, 6, 0.0),
    "four": autoregressive(4, 4, 0.0),
}


@pytest.mark.parametrize("name", CHAINS)
def test_equals_arviz(name):
    draws = CHAINS[name]
    expected = [
        array_stats.ess(draws, method="bulk"),
        array_stats.ess(draws, method="tail", prob=(0.05, 0.95)),
        array_stats.mcse(draws, method="mean"),
    ]
    np.testing.assert_allclose([bulk_ess(draws), tail_ess(draws), mcse_mean(draws)], expected, rtol=1e-8)
    if draws.shape[0] > 1:
        np.testing.assert_allclose(rhat(draws), array_stats.rhat(draws, method="rank"), rtol=1e-8)
    else:
        assert np.isnan(rhat(draws))


def test_bulk_ess_of_an_autoregressive_chain():
    """The integrated autocorrelation time of an AR(1) is (1 + r) / (1 - r)."""
    draws = autoregressive(8, 20_000, 0.7)
    np.testing.assert_allclose(bulk_ess(draws), draws.size * 0.3 / 1.7, rtol=0.1)


def test_importance_ess_closed_forms():
    assert importance_ess(np.full(50, -800.0)) == pytest.approx(50)
    assert importance_ess(np.log([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)
    assert importance_ess(np.array([0.0, -np.inf, -np.inf])) == 1.0


def test_constant_chains():
    assert bulk_ess(np.ones((4, 100))) == 400
    assert np.isnan(rhat(np.ones((4, 100))))
    assert mcse_mean(np.ones((4, 100))) == 0


def test_stuck_chains_have_infinite_rhat():
    assert rhat(np.repeat(np.arange(4.0)[:, None], 50, axis=1)) == np.inf


@pytest.mark.parametrize("diagnose", [bulk_ess, tail_ess, rhat, mcse_mean])
def test_what_cannot_be_judged_is_nan(diagnose):
    broken = CHAINS["iid"].copy()
    broken[1, 3] = np.nan
    assert np.isnan(diagnose(broken)) and np.isnan(diagnose(np.ones((4, 3))))
    with pytest.raises(ValueError, match=r"`draws` must have shape \(chains, draws\)"):
        diagnose(np.zeros(5))
