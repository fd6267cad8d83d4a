"""Supports against known laws: densities integrate, moments agree, bounds may depend on what comes before."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, linalg, stats

from thalweg._core import read_file, register, write_file
from thalweg.targets import (
    Space,
    Support,
    cholesky_corr,
    circular,
    covariance,
    find_start,
    from_function,
    greater_than,
    interval,
    less_than,
    ordered,
    positive,
    positive_ordered,
    real,
    simplex,
    unit_vector,
    zero_sum,
)

LOWER = [0, 3, 4, 6, 7, 8]
"""The lower triangle of a 3 x 3 matrix, in its flat order."""

ALL = {
    "real": (real((2, 3)), None),
    "positive": (positive(3), None),
    "greater_than": (greater_than(np.array([1.0, -2.0])), None),
    "less_than": (less_than(4.0, 3), None),
    "interval": (interval(-1.0, np.array([2.0, 5.0])), None),
    "circular": (circular((2, 2)), None),
    "ordered": (ordered(4), None),
    "positive_ordered": (positive_ordered(4), None),
    "simplex": (simplex(4), [0, 1, 2]),
    "cholesky_corr": (cholesky_corr(3), [3, 6, 7]),
    "covariance": (covariance(3), LOWER),
    "unit_vector": (unit_vector(4), "surface"),
    "zero_sum": (zero_sum(4), "surface"),
    "batch of simplices": (simplex(3, 2), [0, 1, 3, 4]),
    "batch of spheres": (unit_vector(3, (2, 1)), "surface"),
}


@pytest.mark.parametrize("name", ALL)
def test_there_and_back_with_the_stated_measure(name, getkey):
    support, coordinates = ALL[name]
    bijection = support.bijection()

    @jax.jit
    def look(u):
        value, log_det = bijection.forward_and_log_det(u)
        jacobian = jax.jacfwd(lambda u: bijection.forward(u).ravel())(u)
        return (
            value,
            log_det,
            jacobian,
            bijection.inverse(value),
            support.contains(value),
            support.contains(value * jnp.nan),
        )

    u = 1.5 * jax.random.normal(getkey(), (support.size,))
    value, log_det, jacobian, back, inside, nan_inside = jax.tree.map(np.asarray, look(u))
    assert value.shape == support.shape
    assert inside
    assert not nan_inside
    np.testing.assert_allclose(back, u, atol=1e-9)
    if coordinates == "surface":
        truth = 0.5 * np.linalg.slogdet(jacobian.T @ jacobian)[1]
    else:
        truth = np.linalg.slogdet(jacobian if coordinates is None else jacobian[coordinates])[1]
    np.testing.assert_allclose(log_det, truth, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_inside_and_finite_in_single_precision(name):
    with jax.enable_x64(False):
        support, _ = ALL[name]
        bijection = support.bijection()

        @jax.jit
        @jax.vmap
        def look(u):
            value, log_det = bijection.forward_and_log_det(u)
            return value, log_det, jax.jacrev(bijection.forward_and_log_det)(u), support.contains(value)

        sizes = np.array([[0.0], [20.0], [1e3], [1e30]], np.float32)
        u = sizes * np.where(np.arange(support.size) % 2, 1, -1).astype(np.float32)
        *numbers, inside = look(jnp.concatenate([u, -u]))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(numbers))
        assert inside[::4].all()
        if name != "covariance":  # LL' of extreme scales rounds to a matrix that is not positive definite
            assert inside.all()


@pytest.mark.parametrize(
    ("support", "low", "high"),
    [
        (positive(), 0, math.inf),
        (greater_than(1.0), 1, math.inf),
        (less_than(-1.0), -math.inf, -1),
        (interval(0, 1), 0, 1),
    ],
    ids=str,
)
def test_bounds_are_never_reached_by_rounding(support, low, high):
    with jax.enable_x64(False):
        u = jnp.asarray([[-1e30], [-100], [-30], [30], [100], [1e30]], jnp.float32)
        values = np.asarray(jax.jit(jax.vmap(support.bijection().forward))(u))
        assert ((low < values) & (values < high)).all()


def expectation(support: Support, log_density, function=lambda y: 1.0, reach=30.0):
    """The integral of function(y) exp(log_density(y)) over a support of one unconstrained number, by quadrature."""
    bijection = support.bijection()

    @jax.jit
    def integrand(u):
        y, log_det = bijection.forward_and_log_det(u[None])
        return function(y) * jnp.exp(log_density(y) + log_det)

    return integrate.quad(lambda u: float(integrand(jnp.asarray(u))), -reach, reach, limit=200)[0]


def test_exponential_on_the_half_line():
    law = stats.expon(scale=2.0)
    log_density = lambda y: -y / 2 - jnp.log(2.0)  # noqa: E731
    assert expectation(positive(), log_density) == pytest.approx(1, abs=1e-7)
    assert expectation(positive(), log_density, lambda y: y) == pytest.approx(law.mean(), abs=1e-7)


def test_beta_on_an_interval_and_von_mises_on_the_circle():
    log_beta = lambda y: jax.scipy.stats.beta.logpdf(y, 2.0, 5.0)  # noqa: E731
    assert expectation(interval(0, 1), log_beta, lambda y: y**2) == pytest.approx(stats.beta(2, 5).moment(2), abs=1e-7)
    log_von_mises = lambda y: 2 * jnp.cos(y - 1) - jnp.log(2 * jnp.pi * jax.scipy.special.i0(2.0))  # noqa: E731
    assert expectation(circular(), log_von_mises) == pytest.approx(1, abs=1e-7)


def grid(size, reach=18.0, n=181):
    points = np.linspace(-reach, reach, n)
    mesh = np.stack(np.meshgrid(*[points] * size), -1).reshape(-1, size)
    return jnp.asarray(mesh), (points[1] - points[0]) ** size


def test_dirichlet_integrates_to_one():
    alpha = np.array([2.0, 3.0, 1.5])
    points, cell = grid(2)
    values, log_dets = jax.jit(jax.vmap(simplex(3).bijection().forward_and_log_det))(points)
    densities = np.exp(stats.dirichlet(alpha).logpdf((values / values.sum(-1, keepdims=True)).T) + log_dets)
    assert densities.sum() * cell == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose((densities[:, None] * values).sum(0) * cell, alpha / alpha.sum(), atol=1e-6)


def test_uniform_on_the_sphere():
    points, cell = grid(2)
    values, log_dets = jax.jit(jax.vmap(unit_vector(3).bijection().forward_and_log_det))(points)
    weights = np.exp(log_dets) * cell
    assert weights.sum() == pytest.approx(4 * np.pi, rel=1e-6)
    np.testing.assert_allclose(weights @ values, 0, atol=1e-5)
    np.testing.assert_allclose((values * weights[:, None]).T @ values, np.eye(3) * 4 * np.pi / 3, atol=1e-5)


def test_zero_sum_is_helmerts():
    points, cell = grid(2, 8.0, 81)
    values, log_dets = jax.jit(jax.vmap(zero_sum(3).bijection().forward_and_log_det))(points)
    np.testing.assert_allclose(values, points @ linalg.helmert(3), atol=1e-12)
    np.testing.assert_allclose(values.sum(1), 0, atol=1e-12)
    # the normal on the plane, whose covariance is what taking the mean away leaves of the identity
    weights = np.exp(-0.5 * (values**2).sum(1) - np.log(2 * np.pi) + log_dets) * cell
    np.testing.assert_allclose((values * weights[:, None]).T @ values, np.eye(3) - 1 / 3, atol=1e-6)


def test_uniform_correlations_have_the_known_volume():
    """The volume of the 3 x 3 correlation matrices is pi^2 / 2 (Lewandowski, Kurowicka and Joe 2009)."""
    points, cell = grid(3, 9.0, 61)
    factors, log_dets = jax.jit(jax.vmap(cholesky_corr(3).bijection().forward_and_log_det))(points)
    # from entries of the factor to entries of the correlation matrix: prod_i L_ii^(k - i), i from 1
    to_matrix = jnp.log(factors[:, 1, 1])
    assert float(jnp.exp(log_dets + to_matrix).sum() * cell) == pytest.approx(np.pi**2 / 2, rel=1e-4)


def test_wishart_integrates_to_one():
    wishart = stats.wishart(df=4, scale=0.5 * np.eye(2))
    points, cell = grid(3, 7.0, 41)
    matrices, log_dets = jax.jit(jax.vmap(covariance(2).bijection().forward_and_log_det))(points)
    densities = np.exp(wishart.logpdf(np.moveaxis(np.asarray(matrices), 0, -1)) + log_dets)
    assert densities.sum() * cell == pytest.approx(1, abs=1e-3)


def test_zero_is_the_middle():
    middles = [
        (simplex(5), np.full(5, 0.2)),
        (interval(2, 4), 3),
        (cholesky_corr(3), np.eye(3)),
        (covariance(3), np.eye(3)),
    ]
    for support, middle in middles:
        np.testing.assert_allclose(eqx.filter_jit(support.bijection().forward)(jnp.zeros(support.size)), middle)


@register
def below_tau(earlier):
    return earlier["tau"]


def test_dependent_interval():
    space = Space({"tau": positive(), "x": interval(0, below_tau), "y": greater_than(lambda e: e["x"] + e["tau"], 2)})
    assert (space.size, space.names) == (4, ("tau", "x", "y"))
    u = jnp.array([[0.3, -0.7, 0.1, 0.2], [-0.3, 0.7, -0.1, -0.2]])
    flat = lambda u: jnp.concatenate([jnp.ravel(v) for v in space.constrain(u)[0].values()])  # noqa: E731

    @jax.jit
    @jax.vmap
    def look(u):
        values, log_det = space.constrain(u)
        return values, log_det, space.unconstrain(values), jax.jacfwd(flat)(u)

    values, log_det, back, jacobian = look(u)
    assert ((values["x"] > 0) & (values["x"] < values["tau"]) & (values["tau"] < values["y"].min(-1))).all()
    np.testing.assert_allclose(back, u)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobian))[1])
    space.check(values)
    with pytest.raises(ValueError, match=r"`draws\['x'\]` must lie in interval\(0, ...\), got 1.0"):
        space.check({"tau": 0.5, "x": 1.0, "y": np.array([2.0, 2.0])})


def test_an_interval_that_depends_may_be_empty():
    space = Space({"a": real(), "b": interval(lambda e: e["a"], 1.0)})
    inside, outside = (float(space.constrain(jnp.array([a, 0.0]))[1]) for a in (0.0, 2.0))
    assert np.isfinite(inside)
    assert outside == -np.inf
    gradient = jax.grad(lambda u: space.constrain(u)[1])(jnp.array([2.0, 0.0]))
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match=r"finite somewhere, got -inf .* a support is empty: its low is not below"):
        find_start(from_function(lambda p: -(p["a"] ** 2), {"a": real(), "b": interval(below_a, lower_still)}), 0)


def below_a(earlier):
    return earlier["a"]


def lower_still(earlier):
    return earlier["a"] - 1


def test_space_is_kept_in_a_file(tmp_path):
    space = Space({"tau": positive(), "x": interval(-1.0, below_tau), "w": simplex(3, 2), "v": unit_vector(2)})
    write_file(tmp_path / "space", "space", space)
    again = read_file(tmp_path / "space", "space")
    u = jnp.linspace(-1.0, 1.0, space.size)
    assert jax.tree.structure(again) == jax.tree.structure(space)
    jax.tree.map(np.testing.assert_array_equal, eqx.filter_jit(again.constrain)(u), eqx.filter_jit(space.constrain)(u))
    with pytest.raises(ValueError, match="registered"):
        write_file(tmp_path / "other", "space", Space({"x": interval(0, lambda e: 1.0)}))


def test_equal_arguments_give_equal_structure():
    make = lambda: Space({"tau": positive(), "x": interval(0, below_tau), "w": simplex(3)})  # noqa: E731
    assert jax.tree.structure(make()) == jax.tree.structure(make())


SPACE = Space({"mu": real(), "w": simplex(3), "L": cholesky_corr(2), "k": ordered(2)})
GOOD = {"mu": 0.0, "w": np.full(3, 1 / 3), "L": np.eye(2), "k": np.array([0.0, 1.0])}


def test_describe():
    assert SPACE.describe(jnp.zeros(6)) == "mu=0, w=[0.3333, 0.3333, 0.3333], L=[1, 0, 0, 1], k=[0, 1]"
    assert Space({"x": real(9)}).describe(jnp.zeros(9)) == "x=[0, 0, 0, 0, 0, 0, 0, ...]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": None}, "must name exactly mu, w, L, k, got none for 'mu'"),
        ({"nu": 1.0}, "got an unknown 'nu'"),
        ({"w": np.ones(2)}, r"`draws\['w'\]` must have shape \(..., 3\), got \(2,\) beside \(\) for 'mu'"),
        ({"w": np.ones(3)}, r"`draws\['w'\]` must lie in simplex\(3\), got \[1. 1. 1.\]"),
        ({"w": np.array([1.1, -0.1, 0.0])}, r"`draws\['w'\]` must lie in simplex"),
        ({"L": np.ones((2, 2))}, r"`draws\['L'\]` must lie in cholesky_corr\(2\)"),
        ({"k": np.array([1.0, 0.0])}, r"`draws\['k'\]` must lie in ordered\(2\)"),
        ({"mu": math.nan}, r"`draws\['mu'\]` must lie in real\(\), got nan"),
    ],
)
def test_check_of_draws(change, message):
    SPACE.check(GOOD)
    draws = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        SPACE.check(draws)


def test_a_sum_that_is_not_zero():
    Space({"z": zero_sum(3)}).check({"z": np.array([1e6, 0.5, -1e6 - 0.5])})
    with pytest.raises(ValueError, match=r"`draws\['z'\]` must lie in zero_sum\(3\), got"):
        Space({"z": zero_sum(3)}).check({"z": np.array([1.0, 0.5, -1.0])})


def test_shapes_are_checked_on_the_way():
    with pytest.raises(ValueError, match=r"`u` must have shape \(6,\), got \(2, 6\); batches go through jax.vmap"):
        SPACE.constrain(jnp.zeros((2, 6)))
    with pytest.raises(ValueError, match=r"`values\['w'\]` must have shape \(3,\), got \(4,\)"):
        SPACE.unconstrain({**GOOD, "w": np.full(4, 0.25)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: interval(1, 0), "`low` must be below `high`, got 1.0 and 0.0"),
        (lambda: interval(0, math.inf), "`high` must be finite, got inf; leave out a bound"),
        (
            lambda: greater_than("a"),
            "`low` must be a number, an array or a function of the earlier parameters, got 'a'",
        ),
        (lambda: greater_than(np.zeros(3), 2), r"`shape` must fit bounds of shape \(3,\), got \(2,\)"),
        (lambda: simplex(1), "`k` must be a whole number of at least 2, got 1"),
        (lambda: real(0), "`shape` must be a whole number of at least 1, got 0"),
        (lambda: Space({}), "`supports` must name at least one parameter, got an empty dict"),
        (lambda: Space([("x", real())]), "`supports` must be a dict of parameter names and supports"),
        (lambda: Space({"x": real}), r"`supports\['x'\]` must be a Support, got the function real; call it: real\(\)"),
        (lambda: Space({"x": "real"}), r"`supports\['x'\]` must be a Support, got 'real'; use real\(\)"),
        (lambda: Space({1: real()}), "`supports` must have strings for names, got 1"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ValueError, match=message):
        make()
