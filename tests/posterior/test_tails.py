"""Tails: what lines through draws say of the mass beyond them, against known laws."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats as jstats
from jax.scipy.special import gammaln
from numpyro import distributions
from scipy import stats
from scipy.special import logsumexp

import thalweg as tw
from thalweg import problems
from thalweg.distributions import StandardNormal
from thalweg.posterior._tails import look_at_tails

N = 10_000


def _cauchy(params):
    return jstats.cauchy.logpdf(params["x"]).sum()


def _multivariate_t(params):
    return -0.5 * (2 + 4) * jnp.log1p((params["x"] ** 2).sum() / 2)


def _normal(params):
    return jstats.norm.logpdf(params["x"]).sum()


CAUCHY, T, NORMAL = (tw.from_function(f, {"x": tw.real(4)}) for f in (_cauchy, _multivariate_t, _normal))


def test_nothing_is_missing_where_draws_are_right():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        normal = rng.standard_normal((N, 4))
        t = normal / np.sqrt(rng.chisquare(2, (N, 1)) / 2)
        for target, u in ((NORMAL, normal), (T, t), (CAUCHY, rng.standard_cauchy((N, 4)))):
            tails = look_at_tails(target, u, float(N), rng)
            assert tails.told is None
            assert look_at_tails(target, u, float(N), rng, briefly=True).told is None
            # four coordinates of 0.002 beyond the bound, which 10,000 draws know to 0.0009 together, 32 lines to 0.002
            assert tails.missing < 0.005


def test_a_tail_cut_off_is_measured():
    """Cauchy draws cut at 60 lack 2 / (60 pi) of each coordinate's mass."""
    rng = np.random.default_rng(0)
    u = rng.standard_cauchy((4 * N, 4))
    u = u[(np.abs(u) < 60).all(axis=1)][:N]
    tails = look_at_tails(CAUCHY, u, float(N), rng)
    assert tails.missing == pytest.approx(4 * 2 * stats.cauchy.sf(60), rel=0.15)
    assert re.fullmatch(r"`x` has \d\.\d% of its mass in tails where 0\.2% of the draws are", str(tails.told))


def test_a_thin_tail_that_no_draw_is_in():
    """A density as x^-3.2 on the right of 0, Gaussian on the left; cut at 9 draws lack 0.2 % of it, 23 of 10,000."""

    def log_density(p):
        return jnp.where(p["x"] > 0, -1.6 * jnp.log1p(p["x"] ** 2), -1.6 * p["x"] ** 2).sum()

    grid = np.concatenate([np.linspace(-5, 0, 20_000), np.geomspace(1e-6, 1e5, 200_000)])
    mass = np.asarray(np.exp(np.where(grid > 0, -1.6 * np.log1p(grid**2), -1.6 * grid**2))) * np.gradient(grid)
    ladder = np.cumsum(mass) / mass.sum()
    share = np.random.default_rng(0).random((N, 1))
    for most, told in ((1.0, None), (np.interp(9.0, grid, ladder), "of its mass in tails beyond all of the draws")):
        u, rng = np.interp(most * share, ladder, grid), np.random.default_rng(1)
        found = look_at_tails(tw.from_function(log_density, {"x": tw.real(1)}), u, float(N), rng, briefly=True).told
        assert found is None if told is None else told in str(found)


def test_what_weighted_draws_reach_is_not_beyond_all_though_chance_chose_none():
    """Of 10,000 draws 0.14 % of an exponential's mass should lie beyond where these end; some of those weighed do."""
    target = tw.from_function(lambda p: -jnp.abs(p["x"]).sum(), {"x": tw.real(1)})
    cut = -np.log(0.0014)
    u = np.random.default_rng(0).laplace(size=(2 * N, 1))
    u = u[np.abs(u[:, 0]) < cut][:N]
    farther = np.concatenate([u, [[-14.0], [14.0]]])
    alone, among = (
        look_at_tails(target, u, float(N), np.random.default_rng(1), chosen_from=draws).told
        for draws in (None, farther)
    )
    assert "beyond all of the draws" in str(alone)
    assert among is None


def test_even_weights_do_not_hide_a_tail():
    """A normal with 0.4 % of the mass a thousand times as wide: no draw is there, and all weights are the same."""

    def log_density(p):
        wide = jnp.log(0.004) + jstats.norm.logpdf(p["x"], 0.0, 1e3)
        return jnp.logaddexp(jnp.log(0.996) + jstats.norm.logpdf(p["x"]), wide).sum()

    flow = StandardNormal((1,))
    verdict = tw.infer(tw.from_function(log_density, {"x": tw.real(1)}), flow, steps=1, progress=False).verdict
    assert verdict.ess > 9_999
    assert not verdict.ok
    assert "of its mass in tails" in str(verdict)


def test_a_tail_that_is_long_in_all_coordinates_together():
    rng = np.random.default_rng(1)
    radius = np.sqrt(4 * stats.f(4, 2).rvs(8 * N, random_state=rng))
    radius = radius[radius < np.sqrt(4 * stats.f(4, 2).ppf(0.98))][:N]
    way = rng.standard_normal((len(radius), 4))
    u = radius[:, None] * way / np.linalg.norm(way, axis=1, keepdims=True)
    assert look_at_tails(T, u, float(len(u)), rng).told is not None


def test_what_rounding_alone_puts_in_a_tail_is_not_there():
    """Where 1 / p is so large that a count is lost beside it, the negative binomial of NumPyro rises by 1,500 nats.

    A step of the density's own is seen, and what rises steeply; and what lies behind a wall without density.
    """

    def lost(x, low):
        return low + jnp.where((1 + jnp.exp(-x)) - jnp.exp(-x) == 0, 1000 + x, 0.0)

    def in_one(x, low):
        return jnp.where(x < -40.0, 1000 + x, low)

    def steeply(x, low):
        return low + 1000 * jstats.norm.cdf((-40.0 - x) / 1e-4)

    def behind_a_wall(x, low):
        return jnp.where(x < -40.0, 1000 + x, jnp.where(x < -30.0, -jnp.inf, low))

    u = np.random.default_rng(0).standard_normal((N, 2))
    for of, is_told in ((lost, False), (in_one, True), (steeply, True), (behind_a_wall, True)):

        def log_density(p, of=of):
            return of(p["x"][0], jstats.norm.logpdf(p["x"][1]) - p["x"][0] ** 2 / 20)

        target = tw.from_function(log_density, {"x": tw.real(2)})
        told = look_at_tails(target, u * [np.sqrt(10), 1], float(N), np.random.default_rng(1)).told
        assert (told is not None) == is_told, of.__name__


def test_beyond_where_counts_are_lost_nothing_is_known():
    """Counts given a concentration c: beyond 1e18 c + 20 is c, and the log density a constant, smooth and too high."""
    counts = np.random.default_rng(2).multinomial(20, [0.5, 0.3, 0.15, 0.05], size=10).astype(float)
    shares = np.array([0.5, 0.3, 0.15, 0.05])

    def log_density(p, counts):
        c = p["c"]
        lost = gammaln((c * shares)[None] + counts) - gammaln(c * shares)[None]
        return jstats.cauchy.logpdf(c, 0, 10.0) + 10 * (gammaln(c) - gammaln(c + 20.0)) + lost.sum()

    target = tw.from_function(log_density, {"c": tw.positive()}, counts)
    log_c = np.linspace(-5, 25, 30_001)
    log_p = stats.cauchy.logpdf(np.exp(log_c), 0, 10) + log_c
    log_p += stats.dirichlet_multinomial.logpmf(counts.astype(int), np.exp(log_c)[:, None, None] * shares, 20).sum(1)
    share = np.exp(log_p - logsumexp(log_p))
    rng = np.random.default_rng(0)
    u = rng.choice(log_c, 10_000, p=share)[:, None]
    look = look_at_tails(target, u, 10_000.0, rng)
    assert look.told is None
    assert look.missing < 1e-3


def test_the_dispersion_of_counts():
    """Boys in bed with influenza, 1978, as counts about a mean: the mean's and the dispersion's posterior by grid."""
    y = np.array([225, 298, 258, 233, 189, 128])

    def log_density(p):
        n = 1 / p["phi"]
        counts = distributions.NegativeBinomial2(p["mean"], n).log_prob(y).sum()
        return counts + jstats.expon.logpdf(p["phi"], scale=0.2) + jstats.norm.logpdf(jnp.log(p["mean"]), 5, 1)

    target = tw.from_function(log_density, {"mean": tw.positive(), "phi": tw.positive()})
    assert float(target.log_density(jnp.array([5.0, -50.0]))) > float(target.log_density(jnp.array([5.0, -2.0]))) + 100
    posterior = tw.infer(target, seed=0, progress=False)
    assert posterior.verdict.ok
    a, b = np.meshgrid(np.linspace(4, 7, 601), np.linspace(-12, 2, 561), indexing="ij")
    mean, n = np.exp(a)[..., None], np.exp(-b)[..., None]
    log_p = stats.nbinom.logpmf(y, n, n / (n + mean)).sum(-1) + stats.expon.logpdf(np.exp(b), scale=0.2)
    log_p += stats.norm.logpdf(a, 5, 1) + a + b
    log_z = logsumexp(log_p) + np.log(3 / 600 * 14 / 560)
    assert posterior.log_evidence.value == pytest.approx(log_z, abs=0.01)


def test_where_there_is_no_density():
    """Lines on which the log density is no number say nothing."""
    nowhere = tw.from_function(lambda p: jnp.where(p["x"].sum() < -1e6, 0.0, -jnp.inf), {"x": tw.real(4)})
    rng = np.random.default_rng(0)
    assert look_at_tails(nowhere, rng.standard_normal((N, 4)), float(N), rng) == (0.0, None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_cauchy_tails_are_found_or_told_of(seed):
    target = tw.from_function(_cauchy, {"x": tw.real(3)})
    posterior = tw.infer(target, seed=seed, progress=False)
    if posterior.verdict.ok:
        evidence = posterior.log_evidence
        assert abs(evidence.value) < 3 * evidence.standard_error


def test_lines_from_one_mode_see_the_others():
    """Double wells of width .2, 3.4 apart: a coarse line from one steps over the other, and sees mass where none is."""
    for size in (6, 32):
        problem = problems.many_well(size)
        for seed in range(3):
            rng = np.random.default_rng(seed)
            tails = look_at_tails(problem.target, problem.draw(rng, N), 3000.0, rng)
            assert tails.told is None
            assert tails.missing < 0.01
