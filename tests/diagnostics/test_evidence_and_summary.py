"""Evidence, weighted quantiles and summaries against closed forms, NumPy and arviz-stats."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.stats import norm

from thalweg.diagnostics import bridge, log_mean_exp, summarise, weighted_quantile


def test_constant_weights_are_exact():
    assert log_mean_exp(np.full(100, 3.25)) == (3.25, 0.0)
    assert log_mean_exp(np.array([-2.0])) == (-2.0, np.inf)


def test_log_normal_evidence_and_its_error():
    """log w ~ N(m, s^2): log E w = m + s^2 / 2, and the error's coverage is that of a normal."""
    rng = np.random.default_rng(0)
    value, error = log_mean_exp(1e4 + 0.5 * rng.normal(size=200_000))
    np.testing.assert_allclose(error, np.sqrt(np.expm1(0.25) / 200_000), rtol=0.02)
    assert abs(value - (1e4 + 0.125)) < 4 * error
    results = [log_mean_exp(0.5 * rng.normal(size=2000)) for _ in range(400)]
    scores = np.array([(r.value - 0.125) / r.standard_error for r in results])
    assert 0.9 < np.std(scores) < 1.1


def test_bridge_between_normals_and_its_error():
    """p = 7 N(0.5, 1) and q = N(0, 0.6): importance weights of q's draws have no variance, the bridge has."""
    rng = np.random.default_rng(0)

    def log_ratio(x):
        return np.log(7) + norm.logpdf(x, 0.5, 1.0) - norm.logpdf(x, 0.0, 0.6)

    def one():
        return bridge(log_ratio(0.6 * rng.normal(size=1000)), log_ratio(rng.normal(0.5, 1.0, 500)), 500.0)

    results = [one() for _ in range(400)]
    scores = np.array([(r.value - np.log(7)) / r.standard_error for r in results])
    assert 0.9 < np.std(scores) < 1.1
    assert abs(np.mean(scores)) < 0.2
    # at quantiles for draws, what it defines: E_q[p h] = Z E_p[q h]
    levels = (np.arange(4000) + 0.5) / 4000
    of_q, of_p = log_ratio(norm.ppf(levels, 0, 0.6)), log_ratio(norm.ppf(levels, 0.5, 1))
    assert bridge(of_q, of_p, 4000.0).value == pytest.approx(np.log(7), abs=2e-3)


def test_bridge_where_one_of_both_is_zero():
    """p uniform on (0, 1), q on (0, 2): half of q's draws lie outside, and p's all have the same ratio."""
    of_q = np.where(np.arange(1000) % 2, np.log(2.0), -np.inf)
    assert bridge(of_q, np.full(300, np.log(2.0)), 300.0).value == pytest.approx(0)


def test_zero_weights_count_in_the_mean():
    np.testing.assert_allclose(log_mean_exp(np.array([0.0, -np.inf])).value, np.log(0.5))
    with pytest.raises(ValueError, match="`log_weights` must"):
        log_mean_exp(np.array([np.nan]))


def test_equal_weights_give_numpy_quantiles():
    values = np.random.default_rng(0).normal(size=(37, 3, 2))
    levels = np.array([0.0, 0.05, 0.31, 0.5, 1.0])
    found = weighted_quantile(values, levels, np.full(37, -4.0))
    np.testing.assert_allclose(found, np.quantile(values, levels, axis=0), atol=1e-12)
    assert weighted_quantile(values, 0.5, np.zeros(37)).shape == (3, 2)


def test_weighted_quantiles_are_those_of_the_target():
    draws = 1.5 * np.random.default_rng(1).normal(size=100_000)
    levels = np.array([0.05, 0.5, 0.95])
    found = weighted_quantile(draws, levels, norm.logpdf(draws) - norm.logpdf(draws, scale=1.5))
    np.testing.assert_allclose(found, norm.ppf(levels), atol=0.02)


def test_quantiles_mirror_and_ignore_zero_weights():
    rng = np.random.default_rng(2)
    values, log_weights = rng.normal(size=50), rng.normal(size=50)
    mirrored = -weighted_quantile(-values, 0.8, log_weights)
    np.testing.assert_allclose(weighted_quantile(values, 0.2, log_weights), mirrored)
    with_zero = weighted_quantile(np.append(values, np.inf), 0.999, np.append(log_weights, -np.inf))
    np.testing.assert_allclose(with_zero, weighted_quantile(values, 0.999, log_weights))
    assert weighted_quantile(np.array([7.0, 8.0]), 0.3, np.array([0.0, -np.inf])) == 7.0


@pytest.mark.parametrize(("values", "level"), [(np.zeros(3), 0.5), (np.zeros(2), 1.5), (np.zeros(2), np.nan)])
def test_quantile_messages(values, level):
    with pytest.raises(ValueError, match=r"^`(values|probabilities)` must .*, got"):
        weighted_quantile(values, level, np.zeros(2))


@pytest.mark.parametrize(("khat", "usual"), [(0.2, 0.95), (0.5, 0.9), (0.7, 0.8)])
def test_errors_of_heavy_tails_hold_what_they_should(khat, usual):
    """Pareto weights of known mean: two standard errors hold it about as often where sd / sqrt(S) no longer does."""
    rng, mean, ours, plain = np.random.default_rng(5), 1 / (1 - khat), [], []
    for _ in range(300):
        weights = rng.pareto(1 / khat, 5000) + 1
        found = log_mean_exp(np.log(weights))
        off = abs(found.value - np.log(mean))
        ours.append(off < 2 * found.standard_error)
        plain.append(off < 2 * weights.std() / weights.mean() / np.sqrt(5000))
    assert np.mean(ours) > 0.86
    assert np.mean(ours) >= np.mean(plain)
    assert abs(np.mean(plain) - usual) < 0.06


def test_plain_summary():
    rng = np.random.default_rng(0)
    draws = {"mu": rng.normal(size=1000), "theta": rng.normal(size=(1000, 2, 2)), "flag": rng.random(1000) < 0.5}
    rows = summarise(draws)
    assert [r.name for r in rows] == ["mu", *[f"theta[{i},{j}]" for i in (0, 1) for j in (0, 1)], "flag"]
    column = draws["theta"][:, 1, 0]
    expected = [np.mean(column), np.std(column, ddof=1), *array_stats.quantile(column, [0.05, 0.5, 0.95])]
    np.testing.assert_allclose(rows[3][1:-1], [*expected, np.std(column, ddof=1) / np.sqrt(1000)])


def test_weighted_summary():
    rng = np.random.default_rng(0)
    draws = 1.3 * rng.normal(size=(50_000, 1))
    log_weights = (norm.logpdf(draws, 0.2) - norm.logpdf(draws, scale=1.3))[:, 0]
    (row,) = summarise({"x": draws}, log_weights - 900)
    weights = np.exp(log_weights) / np.sum(np.exp(log_weights))
    assert row.name == "x[0]"
    np.testing.assert_allclose([row.mean, row.sd, row.q05, row.q95], [0.2, 1, 0.2 - 1.645, 0.2 + 1.645], atol=0.03)
    np.testing.assert_allclose(row.mcse, np.sqrt(np.sum(weights**2 * (draws[:, 0] - row.mean) ** 2)))


def test_equal_weights_agree_with_none():
    draws = {"x": np.random.default_rng(0).normal(size=(500, 3))}
    plain, weighted = summarise(draws), summarise(draws, np.zeros(500))
    np.testing.assert_allclose([r[1:-1] for r in plain], [r[1:-1] for r in weighted], rtol=2e-3)


def test_khat_of_means():
    """Of a Cauchy quantity the mean does not exist, whatever the weights, and of plain draws too."""
    rng = np.random.default_rng(0)
    draws = {"light": rng.normal(size=4000), "heavy": rng.standard_cauchy(4000), "wild": np.full(4000, 1.0)}
    draws["wild"][3] = np.inf
    raw = 0.1 * rng.normal(size=4000)
    light, heavy, wild = (row.khat for row in summarise(draws, raw, raw_log_weights=raw))
    assert light < 0.3
    assert 0.7 < heavy < 1.3
    assert wild == np.inf
    light, heavy, wild = (row.khat for row in summarise(draws))
    assert light < 0.3
    assert 0.7 < heavy < 1.3
    assert wild == np.inf


def test_infinite_draws_do_not_warn_and_empty_ones_are_refused():
    assert summarise({"x": np.array([1.0, np.inf])})[0].mean == np.inf
    assert np.isfinite(summarise({"x": np.array([1.0, 2.0, np.inf])}, np.array([0, 0, -np.inf]))[0].sd)
    with pytest.raises(ValueError, match=r"`draws\['x'\]` must have draws"):
        summarise({"x": np.zeros(0)})


def test_the_error_of_weights_that_pile_up_at_their_largest_is_the_usual_one():
    """A tail of shape -5: Smith's covariance is none there."""
    weights = np.append(np.ones(9700), 2 - np.random.default_rng(0).random(300) ** 5)
    expected = weights.std(ddof=1) / weights.mean() / 100
    assert log_mean_exp(np.log(weights)).standard_error == pytest.approx(expected, rel=1e-6)
