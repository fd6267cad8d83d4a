"""Chains that start where the weights point, and what they say of the posterior."""

from typing import NamedTuple

import numpy as np

from thalweg._core import PRNGKeyArray, check_choice, numpy_rng, split_on_host
from thalweg.diagnostics import bridge
from thalweg.distributions import AbstractDistribution, AbstractSampler, Transformed
from thalweg.mcmc import Bounds, Chains, independence_chains, latent_chains
from thalweg.posterior._draws import WeighedDraws, draw_and_score, score
from thalweg.posterior._estimates import Estimate
from thalweg.posterior._leak import UNSEEN, Corrected, at_an_end, missed_mass
from thalweg.posterior._tails import look_at_tails
from thalweg.posterior._verdict import LARGEST_RHAT, Verdict, convergence, judge_chains, refused
from thalweg.targets import Target, log_density_of_rows, value_and_score_of_rows

_METHODS = ("imh", "neutra")
_NAMES = {"imh": "independence Metropolis-Hastings", "neutra": "Hamiltonian Monte Carlo in the flow's latent space"}
_BRIDGE_DRAWS = 10_000
_MOST_DOUBLINGS, _ENOUGH, _ENOUGH_SHARE = 8, 2000, 0.2
_DOUBTFUL, _SLACK = 0.7, 1.5
_PACED, _LEAST_EXCESS = 2, 1e-6
"""Doublings from which their pace is known; what R-hat exceeds 1 by at least."""
_LOOKED_AT, _MOST_BLUR = 256, 0.25


class Refined(NamedTuple):
    """The chains, and a sentence on how they were run."""

    chains: Chains
    sentence: str


def run_chains(
    flow: AbstractSampler,
    target: Target,
    start: WeighedDraws,
    method: str | None,
    length: int,
    key: PRNGKeyArray,
    bounds: Bounds,
) -> Refined:
    """Chains from `start`, `length` draws of each, run twice as long again and again until the draws are good enough.

    That is R-hat 1.01 and an effective size of a fifth of the draws, and of 2000 at most; a few times, or for as long
    as there is time.

    Raises:
        ValueError: for an unknown method, or a flow that it cannot use.
    """
    method = method or ("neutra" if isinstance(flow, Transformed) else "imh")
    check_choice("method", method, _METHODS)
    first_key, *more_keys = split_on_host(key, 1 + _MOST_DOUBLINGS)
    if method == "imh":
        chains = independence_chains(flow, target, (start.u, start.log_q), length, first_key, bounds)
    else:
        chains = latent_chains(flow, target, start.u, length, first_key, bounds)
    excesses: list[float] = []
    for left, more_key in zip(range(_MOST_DOUBLINGS, 0, -1), more_keys, strict=True):
        worst, ess = convergence(chains.draws)
        excesses.append(worst - 1)
        enough = worst <= LARGEST_RHAT and ess >= min(_ENOUGH, _ENOUGH_SHARE * chains.draws[..., 0].size)
        if bounds.is_over or enough or _is_hopeless(excesses, left):
            break
        chains = chains.longer(more_key, bounds)
    sentence = (
        f"{_NAMES[method]}: {len(start.u)} chains of {chains.draws.shape[1]} draws, every {int(chains.process.thin)} "
        f"steps, acceptance {chains.acceptance:.0%}"
    )
    return Refined(chains, sentence)


def _is_hopeless(excesses: list[float], doublings: int) -> bool:
    """Whether even the longest chains would disagree, by what R-hat has exceeded 1 by, from doubling to doubling.

    That falls as 1 / n at best; later as fast as it has fallen so far.
    """
    first, last, done = max(excesses[0], _LEAST_EXCESS), excesses[-1], len(excesses) - 1
    pace = 0.5 if done < _PACED else max(0.5, (max(last, 0.0) / first) ** (1 / done))
    return last * pace**doublings > _SLACK * (LARGEST_RHAT - 1)


def _blurred(target: Target, rows: np.ndarray) -> str | None:
    """A sentence where the precision that chains walk in blurs the log density, which weights see in float64."""
    some = rows[:: max(1, len(rows) // _LOOKED_AT)]
    rounding = value_and_score_of_rows(target, some)[0] - log_density_of_rows(target, some)
    blur = float(np.std(rounding[np.isfinite(rounding)]))
    if not blur > _MOST_BLUR:
        return None
    return (
        f"{some.dtype} blurs the log density by {blur:.2g} nats from draw to draw, and the chains with it: use float64"
    )


def judge_refined(
    flow: AbstractSampler, target: Target, refined: Refined, before: Verdict, key: PRNGKeyArray
) -> tuple[Verdict, Estimate | None]:
    """(the verdict on the chains, the log evidence by a bridge from the flow to them)."""
    draws = refined.chains.draws
    own_key, leak_key, tail_key = split_on_host(key, 3)
    own, log_q = draw_and_score(flow, own_key, _BRIDGE_DRAWS)
    verdict = judge_chains(draws, np.asarray(own, float), before.khat, missed_mode=before.missed_mode)
    rows = draws.reshape(-1, draws.shape[-1])
    shares = np.full(len(rows), 1 / len(rows))
    if lost := at_an_end(target, rows, shares) or _blurred(target, rows):
        verdict = refused(verdict, lost)
    if not isinstance(flow, AbstractDistribution) or not verdict.ess > 1:
        return verdict, None
    log_p, log_q_there = (np.asarray(x, float) for x in (log_density_of_rows(target, rows), score(flow, rows)))
    of_q = np.asarray(log_density_of_rows(target, own), float) - log_q
    evidence = Estimate(*bridge(np.where(np.isnan(of_q), -np.inf, of_q), log_p - log_q_there, verdict.ess))
    if verdict.ok:
        # chains that a flow proposes for stay where it has density, and agree with one another there
        even = Corrected(rows, shares, log_p, log_q_there)
        tails = look_at_tails(target, rows, verdict.ess, numpy_rng(tail_key))
        evidence, doubtful = evidence.widened(tails.missing), before.khat >= _DOUBTFUL
        # of 300 groups of two observations each, chains agreed and lacked .03 to .07 of the mass, in the neck
        evidence = evidence if before.ok else evidence.widened(UNSEEN)
        failed = tails.told or missed_mass(flow, target, even, evidence.value, leak_key, doubtful=doubtful)
        verdict = refused(verdict, failed) if failed else verdict
    return verdict, evidence
