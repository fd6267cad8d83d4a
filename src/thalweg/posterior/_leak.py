"""Mass that the draws do not see: where chains of the target's own lead to, and beyond what their precision holds."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from thalweg._core import PRNGKeyArray, in_precision, numpy_rng
from thalweg.distributions import AbstractAuxiliaryDistribution, AbstractSampler
from thalweg.mcmc import LatentDensity
from thalweg.posterior._draws import bends, constrain, pull, push, score
from thalweg.targets import Target, log_density_of_rows, value_and_score_of_rows

UNSEEN = 0.01
"""So large a share of the mass may what is more than one Gaussian lack unseen by every check of it, its draws' noise
least of all: funnels in ten dimensions lacked .001 to .004 of a million draws each, a hierarchy of one observation a
group, with two necks, .014 to .023, funanas .013 to .026, a banana thirty times as long as wide .024."""
_MOST_AT_ENDS = 1e-3
_CHAINS, _ROUNDS, _MORE_ROUNDS, _LEAPS = 384, 16, 64, 4
_LEAST_LOOKS, _MOST_LOOKS = 2, 10
"""So many times 384 chains, three pieces of rows: the fewest where next to none is lost; the most where a few are."""
_TOO_HIGH, _MOST_LOST, _PLAINLY_LOST, _SIGMAS = 5.0, 0.003, 0.02, 2.5
"""A chain is lost where p / q is e^5 times its mean; so many lost chains are too many, so many need no second look; of
many that stood there at first, as chains that follow p may, as many leave as come, give or take their noise."""


class Corrected(NamedTuple):
    """Draws that follow p with their shares: u (n, d); share (n,), of sum 1; log_p and log_q there."""

    u: np.ndarray
    share: np.ndarray
    log_p: np.ndarray
    log_q: np.ndarray


class Chart(NamedTuple):
    """Coordinates x that chains walk in.

    Attributes:
        look: rows x -> (log density, its score), in them.
        metric: the Cholesky factor of their steps' covariance.
        there: rows u -> x.
        back: rows x -> u.
    """

    look: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    metric: np.ndarray
    there: Callable[[np.ndarray], np.ndarray] = lambda u: u
    back: Callable[[np.ndarray], np.ndarray] = lambda x: x


def at_an_end(target: Target, u: np.ndarray, share: np.ndarray) -> str | None:
    """A sentence where corrected draws are as near to a bound as their precision can hold: what lies nearer is lost."""
    for name in target.space.with_ends:
        values = constrain(target.space, target.data, u)[name]
        rate = float(share @ target.space.at_end(name, values))
        if rate > _MOST_AT_ENDS:
            remedy = "use float64, or measure" if values.dtype == np.float32 else "measure"
            return (
                f"`{name}` is within one rounding of a bound at {rate:.1%} of the draws, and {values.dtype} cannot "
                f"tell what lies nearer: {remedy} it from that bound (1 - x for x)"
            )
    return None


def missed_mass(
    flow: AbstractSampler, target: Target, drawn: Corrected, log_evidence: float, key: PRNGKeyArray, *, doubtful: bool
) -> str | None:
    r"""A sentence where the flow leaves out a part of the target that its own draws lead into; None where it does not.

    Draws of q cannot tell of a part that q never reaches, and a reverse KL likes to leave one out: half of a curved
    ridge can be fitted with all but even weights. Chains that leave p as it is can: corrected draws that follow p go on
    following it, and where after a while 3 in 1000 more of them than at first stand at p / q above e^5 times its mean,
    they have found a part of p that q lacks. 16 rounds of Hamiltonian Monte Carlo with 4 steps, step sizes log-uniform
    in [0.01, 1] so that narrow and wide directions both have theirs; in the draws' metric and, of a flow that bends,
    every other time in its own coordinates, where a neck that it lacks is about as wide as the rest. 768 chains, and up
    to 3840 while more than 1 in 1000 is lost; 64 rounds where k-hat is above its threshold and the weights pass for
    their evenness. On bananas of which a flow left out 10 to 30 %, 6 to 40 chains in 1000 were lost; on a curved funnel
    of which one left out a tenth, 4 in the draws' metric, 9 in its own coordinates; on flows with the right evidence,
    less than 1. An end of a ridge that holds 3 % was found at two of three seeds; what lies beyond a gap stays unseen.
    Of an auxiliary flow q is a bound from below, at a chain's start as at its end.

    Args:
        flow: q.
        target: p, up to a constant.
        drawn: corrected draws.
        log_evidence: log of the mean of p / q under q.
        key: of all randomness.
        doubtful: whether the draws' weights passed for their evenness alone, with a long tail: that has hidden a few
            percent.
    """
    rng, rounds = numpy_rng(key), _MORE_ROUNDS if doubtful else _ROUNDS
    u, share = np.asarray(drawn.u, float), drawn.share
    charts = charts_of(flow, target, u, share)
    is_exact = not isinstance(flow, AbstractAuxiliaryDistribution)
    before = np.asarray(drawn.log_p, float) - np.asarray(drawn.log_q, float) - log_evidence

    def excess_at(u: np.ndarray) -> np.ndarray:
        return log_density_of_rows(target, u) - np.asarray(score(flow, u), float) - log_evidence

    lost, rate, noise, highest, farthest = 0, 0.0, 0.0, -np.inf, u[0]
    for looks in range(1, _MOST_LOOKS + 1):
        chosen = rng.choice(len(u), _CHAINS, p=share)
        moved = _leapfrog_chains(charts[looks % len(charts)], u[chosen], rng, rounds)
        if moved is None:
            return None
        excess, at_start = excess_at(moved), before[chosen] if is_exact else excess_at(drawn.u[chosen])
        after, at_first = int(np.sum(excess > _TOO_HIGH)), int(np.sum(at_start > _TOO_HIGH))
        lost, noise = lost + after - at_first, noise + after + at_first
        if excess.max() > highest:
            highest, farthest = excess.max(), moved[np.argmax(excess)]
        rate = lost / (looks * _CHAINS)
        is_seen = lost > _SIGMAS * np.sqrt(noise)
        if (looks >= _LEAST_LOOKS and rate <= _MOST_LOST / 3) or (rate > _PLAINLY_LOST and is_seen):
            break
    if rate <= _MOST_LOST or not is_seen:
        return None
    where = target.space.describe(jnp.asarray(in_precision(farthest)), target.data)
    return (
        f"of chains that start at the draws and follow the log density, {rate:.1%} leave the flow (for one, near "
        f"{where}), so a part of the posterior is missed"
    )


def charts_of(flow: AbstractSampler, target: Target, u: np.ndarray, share: np.ndarray) -> list[Chart]:
    """Coordinates for chains: R^d in the metric of draws `u` with their shares; of a flow that bends, its own too."""
    charts = [Chart(partial(value_and_score_of_rows, target), metric_of(u, share))]
    if bends(flow):
        look = partial(value_and_score_of_rows, LatentDensity(flow, target))
        charts.append(Chart(look, np.eye(target.size), partial(pull, flow), partial(push, flow)))
    return charts


def follow(chart: Chart, u: np.ndarray, rng: np.random.Generator, rounds: int = _MORE_ROUNDS) -> np.ndarray:
    """Where chains that follow the log density lead from `u`, (n, d), in so many rounds; `u` where they cannot."""
    moved = _leapfrog_chains(chart, u, rng, rounds)
    return u if moved is None else np.asarray(moved, float)


def metric_of(u: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The Cholesky factor of the covariance of draws, (n, d), with shares of sum 1."""
    centred = u - share @ u
    covariance = (share[:, None] * centred).T @ centred
    scale = np.sqrt(np.maximum(np.diagonal(covariance), np.finfo(float).tiny))
    correlation = covariance / np.outer(scale, scale)
    return scale[:, None] * np.linalg.cholesky(correlation + 1e-6 * np.eye(len(scale)))


def _leapfrog_chains(chart: Chart, u: np.ndarray, rng: np.random.Generator, rounds: int) -> np.ndarray | None:
    """Where chains are after the rounds; None where the log density cannot be followed."""
    dtype, metric = jnp.result_type(float), chart.metric

    def look(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_p, gradient = chart.look(x.astype(dtype))
        return np.asarray(log_p, float), np.asarray(gradient, float) @ metric

    with np.errstate(all="ignore"):  # a wild proposal is refused
        x = np.asarray(chart.there(u.astype(dtype)), float)
        log_p, slope = look(x)
        if not (np.isfinite(log_p).all() and np.isfinite(slope).all()):
            return None
        for _ in range(rounds):
            step = 10 ** rng.uniform(-2, 0, (len(x), 1))
            start = rng.standard_normal(x.shape)
            new, new_log_p, new_slope, momentum = x, log_p, slope, start
            for _ in range(_LEAPS):
                momentum = momentum + 0.5 * step * new_slope
                new = new + (step * momentum) @ metric.T
                new_log_p, new_slope = look(new)
                momentum = momentum + 0.5 * step * new_slope
            gain = new_log_p - log_p + 0.5 * ((start**2).sum(1) - (momentum**2).sum(1))
            taken = (np.log(rng.random(len(x))) < gain) & np.isfinite(new_slope).all(1)
            x, slope = np.where(taken[:, None], new, x), np.where(taken[:, None], new_slope, slope)
            log_p = np.where(taken, new_log_p, log_p)
        return chart.back(x.astype(dtype))
