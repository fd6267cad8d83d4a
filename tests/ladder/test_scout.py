"""Modes that the first starts miss: densities whose modes are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.distributions import Mixture
from thalweg.flows import make_flow
from thalweg.ladder import Budget, fit_gaussians_each
from thalweg.ladder._fits import fit_gaussians
from thalweg.ladder._modes import Fitted, Mode, missed_mode
from thalweg.ladder._scout import send_scouts, suspects
from thalweg.posterior import score
from thalweg.run import Limit, Progress
from thalweg.targets import find_start, log_density_of_rows


def product(p):
    """Modes at (a, b) and (-a, -b), of half the mass each."""
    return norm.logpdf(p["a"]) + norm.logpdf(p["b"]) + norm.logpdf(1.0, p["a"] * p["b"], 0.2)


def two_normals(p):
    """Four fifths of the mass at 8 in every direction, the rest at -8."""
    right, left = (norm.logpdf(p["x"], m, 0.5).sum() for m in (8.0, -8.0))
    return jnp.logaddexp(jnp.log(0.8) + right, jnp.log(0.2) + left)


def badly_scaled(p):
    scales = jnp.asarray([1e-3, 1.0, 300.0])
    mixed = jnp.asarray([[1.0, 0, 0], [0.5, 1, 0], [0.3, -0.9, 1]]) @ (p["x"] / scales)
    return -0.5 * jnp.sum((mixed - 3) ** 2)


def places(log_density, size, loc, scale):
    target = tw.from_function(log_density, {"x": tw.real(size)})
    mode = Mode(np.full(size, loc), scale * np.eye(size))
    return send_scouts(target, find_start(target, 0).points).elsewhere(
        Fitted([mode], np.zeros(1)), 3, np.empty((0, size))
    )


def test_the_other_of_two_modes_alone_is_found():
    found = places(two_normals, 6, 8.0, 0.5)
    assert found.shape == (1, 6)
    np.testing.assert_allclose(found[0], -8, atol=0.05)


def test_a_gaussian_target_has_nothing_elsewhere():
    assert places(lambda p: -0.5 * jnp.sum((p["x"] - 1) ** 2), 5, 1.0, 1.0).shape == (0, 5)


def test_scales_do_not_matter_to_scouts():
    # from a wrong Gaussian, the mode is what is found
    target = tw.from_function(badly_scaled, {"x": tw.real(3)})
    wrong = Mode(np.array([1e3, 1e3, 1e3]), 1e-3 * np.eye(3))
    found = send_scouts(target, find_start(target, 0).points).elsewhere(
        Fitted([wrong], np.zeros(1)), 3, np.empty((0, 3))
    )
    mode = np.linalg.solve([[1.0, 0, 0], [0.5, 1, 0], [0.3, -0.9, 1]], [3, 3, 3]) * [1e-3, 1, 300]
    assert len(found)
    np.testing.assert_allclose(found[0], mode, rtol=0.2)


@pytest.mark.parametrize("seed", [1, 2])
def test_half_of_two_mirrored_modes_is_not_trusted(seed):
    # from 0, a saddle, and two random points, all starts may end in one of them
    target = tw.from_function(product, {"a": tw.real(), "b": tw.real()})
    posterior = tw.infer(target, "realnvp", seed=seed, steps=200, progress=False)
    assert not posterior.verdict.ok
    assert "another mode" in str(posterior.verdict)
    assert posterior.verdict.missed_mode in posterior.verdict.reasons


@pytest.mark.slow
def test_more_modes_than_can_be_found_are_told_of():
    """2^12 modes of equal mass: the few dozen that are found must not pass for all."""

    def log_density(p):
        parts = norm.logpdf(p["x"][:, None], jnp.asarray([[-3.0, 3.0]]), 0.4)
        return (jnp.logaddexp(parts[:, 0], parts[:, 1]) - jnp.log(2.0)).sum()

    target = tw.from_function(log_density, {"x": tw.real(12)})
    budget = Budget(Limit.of(None), Progress(show=False), None)
    _, rung = fit_gaussians(target, find_start(target, 0), jax.random.key(0), budget)
    assert rung.missed is not None
    assert "ended in places that are left out" in rung.missed


def wide_and_narrow(p):
    """Four fifths of the mass at 0, of sd 1; the rest at 3 in each of eight directions, half as wide."""
    wide, narrow = norm.logpdf(p["x"]).sum(), norm.logpdf(p["x"], 3.0, 0.5).sum()
    return jnp.logaddexp(jnp.log(0.8) + wide, jnp.log(0.2) + narrow)


def test_a_narrow_mode_that_no_random_point_leads_to_is_found():
    target = tw.from_function(wide_and_narrow, {"x": tw.real(8)})
    budget = Budget(Limit.of(None), Progress(show=False), None)
    modes, _ = fit_gaussians(target, find_start(target, 0), jax.random.key(0), budget)
    (narrow,) = modes.far
    np.testing.assert_allclose(modes.gaussians[narrow].loc, 3.0, atol=0.05)
    assert modes.elbo[narrow] == pytest.approx(np.log(0.2), abs=0.05)


def test_in_heavy_tails_suspects_lead_back():
    """A Dirichlet with a corner, whose log density is flat where probabilities underflow."""
    target = tw.from_function(lambda q: (-0.9 * jnp.log(q["p"])).sum(), {"p": tw.simplex(4)})
    starts = find_start(target, 0)
    modes, _ = fit_gaussians(target, starts, jax.random.key(0), Budget(Limit.of(None), Progress(show=False), None))
    assert not modes.far
    found = suspects(target, modes, np.random.default_rng(0))
    assert len(found) > 30
    assert (
        np.abs(found - modes.gaussians[0].loc).max() < 5.1 * np.sqrt(np.diagonal(modes.gaussians[0].covariance)).max()
    )


def test_a_flat_place_is_no_mode():
    """A density that is flat on a box and -inf outside has no way uphill."""
    target = tw.from_function(lambda p: jnp.where((jnp.abs(p["x"]) < 1).all(), 0.0, -jnp.inf), {"x": tw.real(2)})
    points = np.random.default_rng(0).uniform(-2, 2, (128, 2))
    assert not np.isfinite(send_scouts(target, points).log_p).any()


@pytest.mark.parametrize(("mean", "sd"), [(1e5, 50.0), (-2e4, 0.05)])
def test_what_is_far_off_is_found(mean, sd):
    """A Gaussian thousands of its widths from 0: the ladder's first rung has it exactly."""
    target = tw.from_function(lambda p: norm.logpdf(p["x"], mean, sd).sum(), {"x": tw.real(2)})
    posterior = tw.infer(target, seed=0, progress=False)
    assert posterior.verdict.ok
    assert len(posterior.steps_taken) == 1
    assert abs(posterior.log_evidence.value) < 4 * posterior.log_evidence.standard_error


def test_several_data_sets_at_once():
    """Normal means in closed form; the data set with two modes is left to be climbed alone."""

    def log_density(params, data):
        seen = norm.logpdf(data["y"], jnp.where(data["folded"], jnp.abs(params["x"]), params["x"]), 0.1).sum()
        return norm.logpdf(params["x"]) + seen

    data = [{"y": np.array([a, a]), "folded": np.array(b)} for a, b in ((0.7, False), (2.0, True), (-1.5, False))]
    target = tw.from_function(log_density, {"x": tw.real()}, data[0])
    targets = [target.replace_data(d) for d in data]
    starts = [find_start(t, i) for i, t in enumerate(targets)]
    budget = Budget(Limit.of(None), Progress(show=False), None)
    first, folded, last = fit_gaussians_each(targets, starts, jax.random.key(0), budget)
    assert folded is None
    for found, y in ((first, 0.7), (last, -1.5)):
        assert found is not None
        best = found[0].gaussians[0]
        assert best.loc[0] == pytest.approx(200 * y / 201, abs=1e-6)
        assert best.scale_tril[0, 0] == pytest.approx(201**-0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("weight", "scale", "is_missed"), [(0.008, 2.5, False), (0.002, 1.0, True), (0.0004, 2.5, True)]
)
def test_a_mode_is_left_out_by_the_mass_that_a_flow_has_there(weight, scale, is_missed):
    """A fifth of the mass in two dimensions, at the wrong share and width: by its middle all three look left out."""

    def flow(share, wide):
        parts = [
            make_flow("gaussian", 2, loc=m * np.ones(2), scale_tril=s * np.eye(2)) for m, s in ((8, 0.5), (-8, wide))
        ]
        return Mixture(parts, [1 - share, share])

    target = tw.from_function(two_normals, {"x": tw.real(2)})
    modes = Fitted([Mode(m * np.ones(2), 0.5 * np.eye(2)) for m in (8.0, -8.0)], np.log([0.8, 0.2]))
    at = np.full((1, 2), -8.0)
    assert log_density_of_rows(target, at)[0] - score(flow(weight, 0.5 * scale), at)[0] > np.log(67)
    said = missed_mode(target, flow(weight, 0.5 * scale), modes, jax.random.key(0))
    assert (said is not None) == is_missed
    assert said is None or "-8" in said
    assert missed_mode(target, flow(0.2, 0.5), modes, jax.random.key(0)) is None
