"""What a symmetry leads to from a mode: each image is found, and is as high; nothing else is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.ladder import Budget, _fits
from thalweg.ladder._mirror import mirrored
from thalweg.ladder._modes import Fitted, Mode
from thalweg.ladder._scout import Scouts
from thalweg.run import Limit, Progress
from thalweg.targets import find_start, log_density_of_rows


@pytest.fixture(autouse=True)
def _as_users_write():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def images(target, params):
    """The images of one point that are as high as it, and apart from it, as constrained values: name -> (n, *shape)."""
    loc = np.asarray(eqx.filter_jit(target.unconstrain)({k: jnp.asarray(v, float) for k, v in params.items()}))
    modes = Fitted([Mode(loc, 0.01 * np.eye(len(loc)))], np.zeros(1))
    found = mirrored(target, modes).elsewhere(modes, 1000, np.empty((0, target.size)))
    # it is no mode: others may be higher
    found = found[np.isclose(log_density_of_rows(target, found), log_density_of_rows(target, loc[None])[0], rtol=1e-9)]
    values = jax.jit(jax.vmap(lambda u: target.constrain(u)[0]))(jnp.asarray(found))
    return {k: np.asarray(values[k]) for k in params}


def rows(*arrays):
    """As a set of rows, rounded."""
    return {tuple(np.round(np.concatenate([np.ravel(a) for a in one]), 6)) for one in zip(*arrays, strict=True)}


def test_both_factors_of_a_product_turn_their_signs_together():
    def log_density(p):
        prior = norm.logpdf(p["a"]).sum() + norm.logpdf(p["b"]).sum() + norm.logpdf(p["shift"], 1.0)
        return prior + norm.logpdf(p["a"][:, None] * p["b"] + p["shift"], 2.0, p["sd"]).sum() - p["sd"]

    supports = {"a": tw.real(2), "shift": tw.real(), "b": tw.real(3), "sd": tw.positive()}
    a, b = np.array([1.0, 0.8]), np.array([0.7, -0.6, 1.2])
    found = images(tw.from_function(log_density, supports), {"a": a, "shift": 0.3, "b": b, "sd": 0.5})
    turned = [a, -a[::-1], a[::-1]], [b, -b, b]
    # the two entries of `a`, and the three of `b`, may be exchanged too
    expected = set()
    for i, j in [(0, 0), (0, 1), (0, 2), (1, 2)]:
        other = b.copy()
        other[[i, j]] = other[[j, i]]
        expected |= rows([a], [other])
    expected = (expected | rows([-a, turned[0][2]], [-b, b])) - rows([a], [b])
    assert rows(found["a"], found["b"]) == expected
    np.testing.assert_allclose(found["shift"], 0.3)
    np.testing.assert_allclose(found["sd"], 0.5)


def test_columns_of_two_matrices_turn_and_change_places():
    def log_density(p):
        product = p["rows"] @ p["columns"].T
        return norm.logpdf(p["rows"]).sum() + norm.logpdf(p["columns"]).sum() + norm.logpdf(product, 1.0, 0.5).sum()

    target = tw.from_function(log_density, {"rows": tw.real((20, 2)), "columns": tw.real((17, 2))})
    rng = np.random.default_rng(0)
    r, c = rng.standard_normal((20, 2)), rng.standard_normal((17, 2))
    found = images(target, {"rows": r, "columns": c})
    signs = [np.array(s) for s in ((-1, -1), (-1, 1), (1, -1))]
    expected = rows([*(r * s for s in signs), r[:, ::-1]], [*(c * s for s in signs), c[:, ::-1]])
    assert rows(found["rows"], found["columns"]) == expected


def test_labels_of_a_mixture_change_places_with_their_weights():
    y = np.concatenate([np.linspace(-3, -2, 5), np.linspace(0, 1, 7), np.linspace(4, 6, 9)])

    def log_density(p):
        each = jnp.log(p["w"]) + norm.logpdf(y[:, None], p["mu"], p["s"])
        return jax.nn.logsumexp(each, axis=1).sum() + norm.logpdf(p["mu"], 0, 5).sum() - p["s"].sum()

    target = tw.from_function(log_density, {"w": tw.simplex(3), "mu": tw.real(3), "s": tw.positive(3)})
    w, mu, s = np.array([0.2, 0.3, 0.5]), np.array([-2.5, 0.5, 5.0]), np.array([0.4, 0.6, 1.0])
    found = images(target, {"w": w, "mu": mu, "s": s})
    pairs = [[1, 0, 2], [2, 1, 0], [0, 2, 1]]
    assert rows(*(found[k] for k in ("w", "mu", "s"))) == rows(*([v[p] for p in pairs] for v in (w, mu, s)))


def test_states_of_a_chain_change_places_along_both_axes_of_their_transitions():
    y = np.array([0.1, -0.2, 0.3, 3.1, 2.8, 3.3, 2.9, 0.2, -0.1, 0.1, 3.0])

    def log_density(p):
        def step(log_f, y_t):
            log_f = jax.nn.logsumexp(log_f[:, None] + jnp.log(p["t"]), axis=0) + norm.logpdf(y_t, p["mu"])
            return log_f, None

        log_f, _ = jax.lax.scan(step, norm.logpdf(y[0], p["mu"]), y[1:])
        return jax.nn.logsumexp(log_f) + norm.logpdf(p["mu"], 0, 3).sum()

    target = tw.from_function(log_density, {"t": tw.simplex(2, 2), "mu": tw.real(2)})
    t, mu = np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0.0, 3.0])
    found = images(target, {"t": t, "mu": mu})
    assert rows(found["t"], found["mu"]) == rows([t[::-1, ::-1]], [mu[::-1]])


def test_what_an_exchange_makes_invalid_is_no_image():
    """Rows of a Cholesky factor cannot change places, of a covariance only with its columns."""

    def log_density(p):
        return (
            norm.logpdf(p["mu"]).sum() - 2 * jnp.trace(p["s"]) - (p["l"] ** 2).sum() + 2 * jnp.linalg.slogdet(p["s"])[1]
        )

    supports = {"mu": tw.real(2), "s": tw.covariance(2), "l": tw.cholesky_corr(2)}
    target = tw.from_function(log_density, supports)
    s, low = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.0], [0.6, 0.8]])
    u = eqx.filter_jit(target.unconstrain)({"mu": jnp.array([1.0, -0.5]), "s": jnp.asarray(s), "l": jnp.asarray(low)})
    found = mirrored(target, Fitted([Mode(np.asarray(u), 0.01 * np.eye(len(u)))], np.zeros(1)))
    assert np.isfinite(found.ends).all()
    constrain = eqx.filter_jit(target.constrain)
    each = [constrain(jnp.asarray(end))[0] for end in found.ends[np.isfinite(found.log_p)]]
    assert any(np.allclose(p["s"], s[::-1, ::-1]) and np.allclose(p["mu"], [-0.5, 1.0]) for p in each)


def test_no_image_where_there_is_no_symmetry():
    x = np.random.default_rng(0).standard_normal((30, 3))
    y = x @ np.array([2.0, 1.0, 0.5]) + 1

    def log_density(p):
        return norm.logpdf(p["b"], 0, 2).sum() + norm.logpdf(y, p["a"] + x @ p["b"], 0.3).sum() + norm.logpdf(p["a"])

    target = tw.from_function(log_density, {"a": tw.real(), "b": tw.real(3)})
    modes = Fitted([Mode(np.array([1.0, 2.0, 1.0, 0.5]), 0.05 * np.eye(4))], np.zeros(1))
    assert not np.isfinite(mirrored(target, modes).log_p).any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_factor_model_has_both_signs_where_points_sent_uphill_end_at_a_scale_of_0(seed):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((15, 1)) * np.array([1.0, 0.8, -0.7, 0.9]) + 0.5 * rng.standard_normal((15, 4))

    def log_density(p):
        prior = norm.logpdf(p["l"]).sum() + norm.logpdf(p["f"]).sum() - 0.5 * (p["s"] ** 2).sum()
        return prior + norm.logpdf(y, p["f"][:, None] * p["l"], p["s"]).sum()

    target = tw.from_function(log_density, {"l": tw.real(4), "s": tw.positive(4), "f": tw.real(15)})
    budget = Budget(Limit.of(None), Progress(show=False), None)
    modes, _ = _fits.fit_gaussians(target, find_start(target, seed), jax.random.key(seed), budget)
    signs = np.array([np.sign(g.loc[:4]) for g in modes.gaussians])
    assert {tuple(s) for s in signs} == {tuple(s) for s in (signs[0], -signs[0])}
    # one is as good as the other
    assert modes.elbo[0] - modes.elbo[1] < 0.5
    assert (signs[0] != signs[1]).all()


def test_images_that_lead_nowhere_do_not_stand_in_the_way_of_scouts(monkeypatch):
    """A round finds nothing from them, as of two Gaussian processes whose first fits are far from any mode."""

    def log_density(p):
        near, far = (norm.logpdf(p["x"], at).sum() for at in (0.0, 40.0))
        return jnp.logaddexp(near, far)

    rng = np.random.default_rng(0)

    def nowhere(target, modes):
        way = rng.standard_normal((20, 2))
        ends = modes.gaussians[0].loc + 8 * way / np.linalg.norm(way, axis=1, keepdims=True)
        return Scouts.of(ends, log_density_of_rows(target, ends) + 100)

    monkeypatch.setattr(_fits, "mirrored", nowhere)
    target = tw.from_function(log_density, {"x": tw.real(2)})
    budget = Budget(Limit.of(None), Progress(show=False), None)
    modes, _ = _fits.fit_gaussians(target, find_start(target, 0), jax.random.key(0), budget)
    assert {round(float(g.loc[0])) for g in modes.gaussians} == {0, 40}


def test_one_of_several_data_sets_that_has_images_is_left_to_be_climbed_alone(monkeypatch):
    """The sign of x is seen in one data set, not in the other; no point is sent uphill."""

    def log_density(params, data):
        x = params["x"]
        return norm.logpdf(x).sum() + norm.logpdf(data["y"], jnp.where(data["folded"], jnp.abs(x), x), 0.1).sum()

    data = [{"y": np.array([2.0]), "folded": np.array(b)} for b in (False, True)]
    target = tw.from_function(log_density, {"x": tw.real(1)}, data[0])
    targets = [target.replace_data(d) for d in data]
    starts = [find_start(t, i) for i, t in enumerate(targets)]
    nobody = Scouts(np.empty((0, 1)), np.empty(0))
    monkeypatch.setattr(_fits, "send_scouts_each", lambda *_: [nobody, nobody])
    budget = Budget(Limit.of(None), Progress(show=False), None)
    seen, folded = _fits.fit_gaussians_each(targets, starts, jax.random.key(0), budget)
    assert seen is not None
    assert seen[0].gaussians[0].loc[0] == pytest.approx(200 / 101, abs=1e-6)
    assert folded is None
