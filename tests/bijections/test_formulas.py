"""Against the papers: the same maps written again, plainly, in NumPy and SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from helpers import noised, scipy_root
from thalweg.bijections import AffineTransformer, Coupling, Planar, Radial, SplineTransformer


def softplus(x):
    return np.logaddexp(0, x)


def spline_knots(params, spline):
    """x, y and slopes at the knots, for one coordinate (Durkan et al. 2019, section 3.1)."""
    k, floor = spline.bins, spline.min_bin
    w, h, raw = params[:k], params[k : 2 * k], params[2 * k :]
    edges = [
        spline.bound * (2 * np.concatenate([[0], np.cumsum(floor + (1 - floor * k) * softmax(p))]) - 1) for p in (w, h)
    ]
    inner = spline.min_slope + softplus(raw + np.log(np.expm1(1 - spline.min_slope)))
    return edges[0], edges[1], np.concatenate([[1], inner, [1]])


def spline_value_and_slope(x, params, spline):
    """Equations 4 and 5 of the paper, one number at a time."""
    if not -spline.bound < x < spline.bound:
        return x, 1.0
    xs, ys, slopes = spline_knots(params, spline)
    k = np.searchsorted(xs, x, side="right") - 1
    width, height, d0, d1 = xs[k + 1] - xs[k], ys[k + 1] - ys[k], slopes[k], slopes[k + 1]
    s, t = height / width, (x - xs[k]) / width
    below = s + (d1 + d0 - 2 * s) * t * (1 - t)
    value = ys[k] + height * (s * t**2 + d0 * t * (1 - t)) / below
    return value, s**2 * (d1 * t**2 + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2) / below**2


@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_spline_against_the_paper(sigma):
    spline, n = SplineTransformer(bins=6, bound=4.0), 120
    rng = np.random.default_rng(1)
    params = sigma * rng.standard_normal((spline.n_params, n))
    x = rng.uniform(-5, 5, n)
    expected = np.array([spline_value_and_slope(a, p, spline) for a, p in zip(x, params.T, strict=True)])
    y, log_slope = jax.jit(spline.forward_and_log_slope)(jnp.asarray(x), jnp.asarray(params))
    np.testing.assert_allclose(y, expected[:, 0], atol=1e-11)
    np.testing.assert_allclose(log_slope, np.log(expected[:, 1]), atol=1e-9)

    roots = [
        scipy_root(lambda a, p=p, v=v: spline_value_and_slope(a, p, spline)[0] - v, -6, 6)
        for v, p in zip(x, params.T, strict=True)
    ]
    back, back_log_slope = jax.jit(spline.inverse_and_log_slope)(jnp.asarray(x), jnp.asarray(params))
    np.testing.assert_allclose(back, roots, atol=1e-8)
    slopes = [spline_value_and_slope(a, p, spline)[1] for a, p in zip(roots, params.T, strict=True)]
    np.testing.assert_allclose(back_log_slope, -np.log(slopes), atol=1e-5)


def test_spline_is_increasing_and_smooth_at_its_knots_and_at_the_edge():
    spline = SplineTransformer(bins=6, bound=4.0)
    for seed in range(5):
        column = 2 * np.random.default_rng(seed).standard_normal(spline.n_params)
        xs, ys, slopes = spline_knots(column, spline)

        def run(x, column=column):
            params = jnp.asarray(np.broadcast_to(column[:, None], (spline.n_params, len(x))))
            return jax.jit(spline.forward_and_log_slope)(jnp.asarray(x), params)

        grid = np.linspace(-4.5, 4.5, 4001)
        y, log_slope = run(grid)
        assert np.all(np.diff(y) > 0)
        assert np.all(np.isfinite(log_slope))
        tiny = 1e-9
        left, right = run(xs - tiny), run(xs + tiny)
        for side in (left, right):
            np.testing.assert_allclose(side[0], ys, atol=1e-6)
            np.testing.assert_allclose(np.exp(side[1]), slopes, rtol=1e-4)
        np.testing.assert_array_equal(run(np.array([-9.0, -4.0, 4.0, 7.0]))[0], [-9, -4, 4, 7])


@pytest.mark.parametrize(
    "options", [{"bins": 1}, {"bins": 8, "min_bin": 0.2}, {"bound": -1.0}, {"min_slope": 0.0}, {"min_slope": 1.5}]
)
def test_spline_floors_must_leave_room(options):
    with pytest.raises(ValueError, match="`SplineTransformer` must have at least 2 bins"):
        SplineTransformer(**options)


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_planar_against_the_paper(d, sigma):
    f = noised(Planar(d, seed=1), sigma=sigma)
    w, u, b = (np.asarray(a) for a in (f.w, f.u, f.b))
    z = np.random.default_rng(0).standard_normal(d)
    # m(x) = -1 + softplus(x + ln(e - 1)): the paper's with a shift, for which zero is the identity
    m = max(-1 + softplus(w @ u + np.log(np.e - 1)), -0.999)
    u_hat = u + (m - w @ u) * w / (w @ w)
    h = np.tanh(w @ z + b)
    psi = (1 - h**2) * w
    y, log_det = f.forward_and_log_det(jnp.asarray(z))
    np.testing.assert_allclose(y, z + u_hat * h, rtol=1e-12)
    np.testing.assert_allclose(log_det, np.log(abs(1 + u_hat @ psi)), rtol=1e-9, atol=1e-12)
    assert w @ u_hat > -1


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_radial_against_the_paper(d, sigma):
    f = noised(Radial(d, seed=1), sigma=sigma, seed=2)
    center, a, c = (np.asarray(x) for x in (f.center, f.a, f.c))
    alpha = softplus(a) + 1e-3
    beta = max(softplus(a + c) - softplus(a), -0.999 * alpha)
    z = np.random.default_rng(0).standard_normal(d)
    r = np.linalg.norm(z - center)
    h, slope = 1 / (alpha + r), -1 / (alpha + r) ** 2
    y, log_det = f.forward_and_log_det(jnp.asarray(z))
    np.testing.assert_allclose(y, z + beta * h * (z - center), rtol=1e-12)
    expected = (d - 1) * np.log(1 + beta * h) + np.log(1 + beta * h + beta * slope * r)
    np.testing.assert_allclose(log_det, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("build", [Planar, Radial])
def test_planar_and_radial_invert_where_they_are_steepest(build):
    for seed in range(4):
        f = noised(build(3), sigma=4.0, seed=seed)
        x = jnp.asarray(3 * np.random.default_rng(seed).standard_normal((64, 3)))
        back = eqx.filter_jit(lambda f, x: jax.vmap(lambda p: f.inverse(f.forward(p)))(x))(f, x)
        np.testing.assert_allclose(back, x, atol=1e-8)


def test_planar_with_no_direction_is_finite():
    f = eqx.tree_at(lambda f: (f.w, f.u), Planar(3), (jnp.zeros(3), jnp.ones(3)))
    value, gradient = eqx.filter_value_and_grad(lambda f: f.forward(jnp.ones(3)).sum())(f)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_affine_coupling_against_the_paper():
    f = noised(Coupling(4, AffineTransformer(max_log_scale=1.5), width=8))
    x = np.random.default_rng(0).standard_normal(4)
    params = np.asarray(f.conditioner(jnp.asarray(x[:2]))).reshape(2, 2)
    s = 1.5 * np.tanh(params[0] / 1.5)
    y, log_det = f.forward_and_log_det(jnp.asarray(x))
    np.testing.assert_allclose(y, np.concatenate([x[:2], x[2:] * np.exp(s) + params[1]]), rtol=1e-12)
    np.testing.assert_allclose(log_det, s.sum(), rtol=1e-12)
