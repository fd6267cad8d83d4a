"""Every support: a known law on it, inferred, has that law's moments to five standard errors."""

import math

import jax.numpy as jnp
import jax.scipy.stats as jstats
import numpy as np
import pytest
from scipy import special, stats

import thalweg as tw

pytestmark = pytest.mark.slow

N = 10_000
TILT = np.array([0.6, -0.8, 0.0])
CENTER = np.array([1.0, -2.0, 0.5, 3.0])
SCALE = np.array([[1.0, 0.4], [0.4, 2.0]])
PRIOR = np.array([[2, 0.5, 0], [0.5, 1, 0.3], [0, 0.3, 3]])
ALPHA = np.array([2.0, 3.0, 1.5])


def of(law):
    """(mean, mean square) of a SciPy law."""
    return np.array([law.mean(), law.moment(2)])


def both(x):
    """Each number and its square."""
    return np.stack([x, x**2], -1)


def half(x):
    """Those of the matrices' elements that differ: diagonal, then below."""
    return both(x[:, [0, 1, 1], [0, 1, 0]])


def correlations(x):
    """The three correlations whose factor x is, and their squares."""
    return both((x @ np.swapaxes(x, -1, -2))[:, [1, 2, 2], [0, 0, 1]])


def moments(means, variances):
    """(means, mean squares), last."""
    means, variances = np.asarray(means), np.asarray(variances)
    return np.stack([means, variances + means**2], -1)


# name: support, log density, what to average, what that is
LAWS = {
    "real": (tw.real(2), lambda x: jstats.norm.logpdf(x, 3.0, 0.5).sum(), both, moments([3, 3], [0.25, 0.25])),
    "positive": (tw.positive(), lambda x: jstats.gamma.logpdf(x, 3.0, scale=2.0), both, of(stats.gamma(3, scale=2))),
    "greater_than": (tw.greater_than(2.0), lambda x: jstats.expon.logpdf(x, 2.0), both, of(stats.expon(2))),
    "less_than": (
        tw.less_than(-1.0),
        lambda x: jstats.gamma.logpdf(-1.0 - x, 2.0),
        both,
        moments(-3, 2),  # -1 minus a gamma's mean of 2
    ),
    "interval": (tw.interval(-1.0, 2.0), lambda x: jstats.beta.logpdf(x, 2.0, 5.0, -1.0, 3.0), both, None),
    "circular": (
        tw.circular(),
        lambda x: 2 * jnp.cos(x - 3),  # across the cut at pi
        lambda x: np.stack([np.cos(x - 3), np.sin(x - 3)], -1),
        np.array([special.i1(2) / special.i0(2), 0]),
    ),
    # order statistics of three normals and of three exponentials (Arnold et al. 2008, sections 4.9 and 4.6)
    "ordered": (
        tw.ordered(3),
        lambda x: jstats.norm.logpdf(x).sum(),
        both,
        moments([-1.5 / math.sqrt(math.pi), 0, 1.5 / math.sqrt(math.pi)], [0.5594672, 0.4486711, 0.5594672]),
    ),
    "positive_ordered": (
        tw.positive_ordered(3),
        lambda x: -x.sum(),
        both,
        moments([1 / 3, 5 / 6, 11 / 6], [1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1]),
    ),
    "simplex": (
        tw.simplex(3),
        lambda x: ((ALPHA - 1) * jnp.log(x)).sum(),
        both,
        moments(stats.dirichlet(ALPHA).mean(), stats.dirichlet(ALPHA).var()),
    ),
    # LKJ of shape 2: its factor's density, and the correlations' law, a beta on (-1, 1)
    "cholesky_corr": (
        tw.cholesky_corr(3),
        lambda x: (jnp.asarray([3.0, 2.0]) * jnp.log(jnp.diagonal(x)[1:])).sum(),
        correlations,
        moments(np.zeros(3), np.full(3, 1 / 6)),
    ),
    "covariance": (
        tw.covariance(2),
        lambda x: jnp.log(jnp.linalg.det(x)) * (7 - 3) / 2 - 0.5 * jnp.trace(jnp.linalg.inv(SCALE) @ x),
        half,
        moments([7 * 1.0, 7 * 2.0, 7 * 0.4], [2 * 7 * 1.0, 2 * 7 * 4.0, 7 * (0.4**2 + 2.0)]),
    ),
    # inverse Wishart as its formula is written: all but singular matrices make the inverse rounding, without bound
    "covariance, by its inverse": (
        tw.covariance(3),
        lambda x: -(12 + 4) / 2 * jnp.linalg.slogdet(x)[1] - 0.5 * jnp.trace(jnp.asarray(PRIOR) @ jnp.linalg.inv(x)),
        lambda x: x,
        PRIOR / (12 - 4),
    ),
    "unit_vector": (
        tw.unit_vector(3),
        lambda x: 3 * x @ TILT,
        lambda x: x @ TILT,
        np.array(1 / math.tanh(3) - 1 / 3),
    ),
    "zero_sum": (
        tw.zero_sum(4),
        lambda x: jstats.norm.logpdf(x, CENTER, 2.0).sum(),
        both,
        moments(CENTER - CENTER.mean(), np.full(4, 4 * (1 - 1 / 4))),
    ),
}
beta = stats.beta(2, 5, -1, 3)
LAWS["interval"] = (*LAWS["interval"][:3], of(beta))


def within_five_errors(posterior, values, truth):
    ess = posterior.verdict.ess
    error = values.std(axis=0) * math.sqrt(1 / N + 1 / ess)
    assert (np.abs(values.mean(axis=0) - truth) < 5 * error).all(), (values.mean(axis=0), truth, error)


@pytest.mark.parametrize("name", LAWS)
def test_moments_of_a_known_law(name):
    support, log_density, averaged, truth = LAWS[name]
    posterior = tw.infer(tw.from_function(lambda p: log_density(p["x"]), {"x": support}), seed=0, progress=False)
    assert posterior.verdict.ok, posterior.verdict
    within_five_errors(posterior, averaged(posterior.resample(N, seed=1)["x"]), truth)


def test_moments_where_an_interval_depends_on_another_parameter():
    def log_density(p):
        return jstats.gamma.logpdf(p["top"], 4.0) - jnp.log(p["top"])

    supports = {"top": tw.positive(), "x": tw.interval(0, lambda earlier: earlier["top"])}
    posterior = tw.infer(tw.from_function(log_density, supports), seed=0, progress=False)
    assert posterior.verdict.ok, posterior.verdict
    draws = posterior.resample(N, seed=1)
    # x uniform on (0, top): E x = E top / 2, E x^2 = E top^2 / 3, E x top = E top^2 / 2
    values = np.stack([draws["x"], draws["x"] ** 2, draws["x"] * draws["top"]], -1)
    within_five_errors(posterior, values, np.array([2.0, 20 / 3, 10.0]))
