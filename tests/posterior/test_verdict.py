"""The verdict on weights whose behaviour is known."""

import numpy as np

from thalweg.posterior import judge

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((10_000, 2))


def test_constant_weights_are_the_best_there_are():
    verdict = judge(np.full(10_000, -3.0), VALUES)
    assert verdict.ok
    assert verdict.raw_ok
    assert verdict.ess == 10_000
    assert not verdict.reasons
    assert not verdict.advice
    assert str(verdict).startswith("Trust it")


def test_a_shifted_flow_is_corrected_but_not_trusted_raw():
    # q = N(0, 1), p = N(0.5, 1) in the first coordinate: weights are bounded in the tails that matter
    verdict = judge(0.5 * VALUES[:, 0], VALUES)
    assert verdict.ok
    assert not verdict.raw_ok
    assert "corrected draws" in str(verdict)


def test_a_heavy_tail_is_refused():
    # p / q with a Pareto tail of shape 1
    verdict = judge(RNG.exponential(1.0, 10_000), VALUES)
    assert not verdict.ok
    assert not verdict.raw_ok
    assert verdict.khat > 0.7
    assert any("k-hat" in reason for reason in verdict.reasons)
    assert verdict.advice
    assert "float64" not in str(verdict)


def test_float64_is_advised_where_it_is_not_used():
    verdict = judge(RNG.exponential(1.0, 10_000), VALUES.astype(np.float32))
    assert "or try float64" in str(verdict)


def test_one_draw_that_found_another_mode_is_heard():
    """Smoothing would hide it: 9,999 weights all but equal, and one of a mass that they miss."""
    found = RNG.normal(0, 0.05, 10_000)
    found[17] = np.log(600.0)
    verdict = judge(found, VALUES)
    assert not verdict.ok
    assert verdict.ess < 400
    assert any("a part of the posterior may be missed" in r for r in verdict.reasons)


def test_a_short_heavy_tail_of_even_weights_is_passed():
    even = RNG.normal(0, 0.02, 10_000)
    even[:30] = np.log(np.geomspace(1.5, 8, 30))
    verdict = judge(even, VALUES)
    assert verdict.khat > 0.7
    assert verdict.raw_ok
    assert "of weights that are all but even" in str(verdict)


def test_few_effective_draws_are_refused():
    few = np.full(10_000, -50.0)
    few[:100] = 0.0
    verdict = judge(few, VALUES)
    assert not verdict.ok
    assert any("100 of 10,000 draws are effective" in r for r in verdict.reasons)


def test_a_failed_fit_is_never_trusted():
    verdict = judge(np.zeros(10_000), VALUES, failed="the objective was not finite")
    assert not verdict.ok
    assert not verdict.raw_ok
    assert "the objective was not finite" in str(verdict)
