"""Against the papers: the same maps written again, plainly, in NumPy and SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from scipy.stats import norm

from helpers import noised, scipy_root
from thalweg.bijections import (
    AffineTransformer,
    Autoregressive,
    BlockAutoregressive,
    Coupling,
    Elementwise,
    GatedTransformer,
    Householder,
    Planar,
    Radial,
    SigmoidalTransformer,
    SinhArcsinhTransformer,
    SplineTransformer,
    Sylvester,
)


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


def reflections(vectors):
    """H_n ... H_1, each I - 2 v v' / v'v."""
    product = np.eye(vectors.shape[1])
    for v in vectors:
        product = (np.eye(len(v)) - 2 * np.outer(v, v) / (v @ v)) @ product
    return product


def test_householder_against_the_paper():
    f = noised(Householder(5), sigma=1.0)
    x = np.random.default_rng(0).standard_normal(5)
    y, log_det = f.forward_and_log_det(jnp.asarray(x))
    np.testing.assert_allclose(y, reflections(np.asarray(f.vectors)) @ x, atol=1e-12)
    assert log_det == 0


@pytest.mark.parametrize("sigma", [0.3, 3.0])
@pytest.mark.parametrize("basis", ["orthogonal", "householder", "triangular"])
def test_sylvester_against_the_paper(basis, sigma):
    d = 5
    f = noised(Sylvester(d, basis, columns=3), sigma=sigma)
    q = np.asarray(f.q)
    q = {
        "orthogonal": lambda: np.linalg.qr(q)[0],
        "householder": lambda: reflections(q),
        "triangular": lambda: np.eye(d),
    }[basis]()
    np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-12)
    r, r_tilde = (
        np.triu(m, 1) + np.diag(0.999 * np.tanh(np.diag(m))) for m in map(np.asarray, (f.upper, f.upper_tilde))
    )
    z = np.random.default_rng(0).standard_normal(d)
    h = np.tanh(r_tilde @ q.T @ z + np.asarray(f.bias))
    y, log_det = f.forward_and_log_det(jnp.asarray(z))
    np.testing.assert_allclose(y, z + q @ r @ h, rtol=1e-10, atol=1e-12)
    # the d x d determinant that the paper's m x m one is (its theorem 1)
    sign, truth = np.linalg.slogdet(np.eye(d) + q @ r @ np.diag(1 - h**2) @ r_tilde @ q.T)
    assert sign == 1
    np.testing.assert_allclose(log_det, truth, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_deep_sigmoidal_against_the_paper(sigma):
    k, n = 4, 60
    transformer = SigmoidalTransformer(k)
    rng = np.random.default_rng(0)
    params, x = sigma * rng.standard_normal((3 * k, n)), 2 * rng.standard_normal(n)
    gain = np.linspace(-2, 2, k) + 0.5 / k
    w, a, b = (8 * np.tanh(p * gain[:, None] / 8) for p in np.split(params, 3))
    w, a = softmax(w, axis=0), 0.01 + softplus(a + np.log(np.expm1(0.99)))
    sigmoids = expit(a * x + b)
    p = (w * sigmoids).sum(0)
    slopes = (w * a * sigmoids * (1 - sigmoids)).sum(0) / (p * (1 - p))
    y, log_slope = jax.jit(transformer.forward_and_log_slope)(jnp.asarray(x), jnp.asarray(params))
    np.testing.assert_allclose(y, logit(p), atol=1e-9)
    np.testing.assert_allclose(log_slope, np.log(slopes), atol=1e-8)
    back, back_log_slope = jax.jit(transformer.inverse_and_log_slope)(jnp.asarray(logit(p)), jnp.asarray(params))
    np.testing.assert_allclose(back, x, atol=1e-7)
    np.testing.assert_allclose(back_log_slope, -np.log(slopes), atol=1e-6)


def test_block_autoregressive_against_the_paper():
    d, width = 3, 4
    f = noised(BlockAutoregressive(d, width=width, depth=2), sigma=0.5)
    x = np.random.default_rng(0).standard_normal(d)

    def network(x):
        """Blocks B_ij: exp for i = j, free for i > j, none above; rows of norm e^s (its section 3.2)."""
        h = x
        for i, (w, s, b) in enumerate(zip(f.weights, f.log_norms, f.biases, strict=True)):
            rows, columns = (1 if i == 2 else width), (1 if i == 0 else width)
            full = np.zeros(w.shape)
            for p in range(d):
                for q in range(p + 1):
                    block = np.s_[p * rows : (p + 1) * rows, q * columns : (q + 1) * columns]
                    full[block] = np.exp(w[block]) if p == q else w[block]
            h = (np.exp(s) / np.linalg.norm(full, axis=1))[:, None] * full @ h + b
            h = np.tanh(h) if i < 2 else h
        gate = expit(np.asarray(f.gate))
        return (1 - gate) * x + gate * h

    y, log_det = f.forward_and_log_det(jnp.asarray(x))
    np.testing.assert_allclose(y, network(x), rtol=1e-12)
    step = 1e-5 * np.eye(d)
    jacobian = np.stack([(network(x + e) - network(x - e)) / 2e-5 for e in step], -1)
    np.testing.assert_allclose(np.triu(jacobian, 1), 0, atol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=1e-7)


def test_gated_autoregressive_against_the_paper():
    f = noised(Autoregressive(3, GatedTransformer(gate_bias=1.5), width=8))
    x = np.random.default_rng(0).standard_normal(3)
    raw, m = np.asarray(f.conditioner(jnp.asarray(x), None))
    # sigma x + (1 - sigma) m (equation 10), the gate floored and divided by its value at the start
    gate = 1e-3 + (1 - 1e-3) * expit(raw + 1.5) / expit(1.5)
    y, log_det = f.forward_and_log_det(jnp.asarray(x))
    np.testing.assert_allclose(y, gate * x + (1 - gate) * m, rtol=1e-12)
    np.testing.assert_allclose(log_det, np.log(gate).sum(), rtol=1e-12)


def test_sinh_arcsinh_against_the_law_of_jones_and_pewsey():
    tails, skew = 0.6, -0.4
    limit = 1.0
    numbers = limit * np.arctanh(np.array([tails, skew]) / limit)
    f = eqx.tree_at(
        lambda f: f.params, Elementwise(2, SinhArcsinhTransformer(limit), first=1), jnp.asarray(numbers)[:, None]
    )
    x = np.array([0.7, -1.3])
    y, log_det = f.forward_and_log_det(jnp.asarray(x))
    np.testing.assert_allclose(y, [np.sinh(np.exp(tails) * (np.arcsinh(x[0]) + skew)), x[1]], rtol=1e-12)
    # their equation 2, delta = e^-s and epsilon = delta a: the law of y for a normal x
    delta = np.exp(-tails)
    angle = delta * np.arcsinh(y[0]) - skew
    density = delta * np.cosh(angle) / np.sqrt(2 * np.pi * (1 + y[0] ** 2)) * np.exp(-0.5 * np.sinh(angle) ** 2)
    np.testing.assert_allclose(norm.logpdf(x[0]) - log_det, np.log(density), rtol=1e-12)
