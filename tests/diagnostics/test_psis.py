"""PSIS and k-hat against arviz-stats and against distributions whose tail is known."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.stats import genpareto

from thalweg.diagnostics import fit_pareto, khat_threshold, parameter_khat, psis


def log_sum(values):
    return float(np.logaddexp.reduce(values))


def arviz_khat(values, tail):
    return array_stats.pareto_khat(values[None, :], r_eff=1.0, tail=tail)


def make_log_weights(kind, size, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "light": lambda: -0.5 * rng.normal(size=size) ** 2 - 700.0,
        "normal": lambda: rng.normal(size=size),
        "heavy": lambda: 3.0 * rng.standard_t(3, size=size) + 1e4,
        "pareto": lambda: rng.exponential(size=size),  # k = 1
    }[kind]()


@pytest.mark.parametrize("size", [25, 30, 225, 226, 4000])
@pytest.mark.parametrize("kind", ["light", "normal", "heavy", "pareto"])
def test_equals_arviz(kind, size):
    log_weights = make_log_weights(kind, size)
    kept = log_weights.copy()
    found = psis(log_weights)
    expected, khat = array_stats.psislw(-log_weights)
    np.testing.assert_allclose(found.log_weights, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.khat, khat, rtol=1e-8)
    np.testing.assert_array_equal(log_weights, kept)
    assert found.tail_length == int(min(size / 5, 3 * np.sqrt(size)))
    assert abs(log_sum(found.log_weights)) < 1e-12


def test_shift_and_order_change_nothing():
    log_weights = make_log_weights("heavy", 1000)
    order = np.random.default_rng(1).permutation(1000)
    found, moved = psis(log_weights), psis(log_weights[order] + 5e3)
    np.testing.assert_allclose(moved.log_weights, found.log_weights[order], atol=1e-7)
    np.testing.assert_allclose(moved.khat, found.khat, rtol=1e-7)


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.5, 0.9])
def test_khat_finds_the_shape_of_a_pareto_tail(shape):
    values = genpareto.rvs(shape, size=100_000, random_state=3)
    assert abs(psis(np.log(values)).khat - shape) < 0.08


def test_fit_recovers_shape_and_scale():
    fit = fit_pareto(np.sort(genpareto.rvs(0.4, scale=2.5, size=200_000, random_state=0)))
    np.testing.assert_allclose(fit, [0.4, 2.5], rtol=0.02)


def test_smoothing_helps_a_heavy_tail():
    """Self-normalised mean of an exponential from a narrower one: smoothed weights have the smaller error."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        draws = rng.exponential(size=1000) / 1.6
        log_weights = 0.6 * draws
        raw = np.exp(log_weights - log_sum(log_weights))
        errors.append([np.sum(w * draws) - 1 for w in (raw, np.exp(psis(log_weights).log_weights))])
    raw_error, smoothed_error = np.sqrt(np.mean(np.square(errors), axis=0))
    assert smoothed_error < 0.98 * raw_error


@pytest.mark.parametrize("constant", [0.0, -1e5, 1e5])
def test_constant_weights_have_nothing_to_smooth(constant):
    found = psis(np.full(1000, constant))
    assert found.khat == -np.inf
    np.testing.assert_allclose(found.log_weights, -np.log(1000), rtol=1e-12)


def test_constant_up_to_rounding_is_not_alarming():
    log_weights = np.zeros(1000)
    log_weights[7] = 1e-7
    assert psis(log_weights).khat == -np.inf


def test_a_bounded_tail_of_ties_is_minus_infinite():
    log_weights = np.concatenate([make_log_weights("normal", 700) - 20, np.zeros(300)])
    assert psis(log_weights).khat == -np.inf


def test_draws_outside_the_support_stay_outside():
    log_weights = make_log_weights("normal", 1000)
    log_weights[::2] = -np.inf
    found = psis(log_weights)
    assert np.all(found.log_weights[::2] == -np.inf) and np.all(np.isfinite(found.log_weights[1::2]))
    assert np.isfinite(found.khat) and abs(log_sum(found.log_weights)) < 1e-12


@pytest.mark.parametrize("finite", [1, 4])
def test_weight_on_a_handful_cannot_be_trusted(finite):
    log_weights = np.full(1000, -np.inf)
    log_weights[:finite] = np.arange(finite)
    assert psis(log_weights).khat == np.inf


@pytest.mark.parametrize("spread", [1e3, 1e6, 1e300])
def test_enormous_spread_is_inf_or_large_never_nan(spread):
    found = psis(spread * make_log_weights("normal", 500))
    assert found.khat > 0.7 and not np.any(np.isnan(found.log_weights))


def test_few_draws_cannot_be_judged():
    found = psis(make_log_weights("normal", 24))
    assert found.khat == np.inf and found.tail_length == 0
    assert abs(log_sum(found.log_weights)) < 1e-12


@pytest.mark.parametrize("bad", [[0.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf], [], [[0.0]]])
def test_bad_weights_are_refused_in_one_sentence(bad):
    with pytest.raises(ValueError, match=r"^`log_weights` must .*, got .*"):
        psis(np.array(bad))


def test_threshold_is_that_of_the_paper():
    np.testing.assert_allclose([khat_threshold(n) for n in (100, 1000, 2200, 10**6)], [0.5, 2 / 3, 0.7, 0.7], atol=1e-3)
    assert khat_threshold(1) == -np.inf


def test_parameter_khat_equals_arviz():
    rng = np.random.default_rng(2)
    log_weights, values = rng.normal(size=2000), rng.standard_t(3, size=(2000, 4))
    weights = np.exp(log_weights - np.max(log_weights))
    expected = [
        max(
            arviz_khat(weights, "right"),
            arviz_khat(weights * column, "both"),
        )
        for column in values.T
    ]
    np.testing.assert_allclose(parameter_khat(values, log_weights), expected, rtol=1e-8)


def test_parameter_khat_sees_a_parameter_without_a_mean():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=4000), rng.standard_cauchy(size=4000), np.ones(4000)], axis=1)
    light, heavy, constant = parameter_khat(values, 0.1 * rng.normal(size=4000))
    assert light < 0.3 and heavy > 0.8 and constant < 0.3


def test_parameter_khat_checks_its_rows():
    with pytest.raises(ValueError, match=r"`values` must have shape \(3, p\)"):
        parameter_khat(np.zeros((4, 2)), np.zeros(3))
