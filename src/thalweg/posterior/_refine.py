"""Chains that start where the weights point, and what they say of the posterior."""

from typing import NamedTuple

import numpy as np

from thalweg._core import PRNGKeyArray, check_choice, split_on_host
from thalweg.diagnostics import bridge
from thalweg.distributions import AbstractDistribution, AbstractSampler, Transformed
from thalweg.mcmc import Chains, independence_chains, latent_chains
from thalweg.posterior._draws import WeighedDraws, draw_and_score, score
from thalweg.posterior._estimates import Estimate
from thalweg.posterior._leak import Corrected, missed_mass
from thalweg.posterior._verdict import Verdict, judge_chains, refused
from thalweg.run import Progress
from thalweg.targets import Target, log_density_of_rows

_METHODS = ("imh", "neutra")
_NAMES = {"imh": "independence Metropolis-Hastings", "neutra": "Hamiltonian Monte Carlo in the flow's latent space"}
_BRIDGE_DRAWS = 10_000
_DOUBTFUL = 0.7


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
    progress: Progress,
) -> Refined:
    """Chains from `start`, `length` draws of each.

    Raises:
        ValueError: for an unknown method, or a flow that it cannot use.
    """
    method = method or ("neutra" if isinstance(flow, Transformed) else "imh")
    check_choice("method", method, _METHODS)
    if method == "imh":
        chains = independence_chains(flow, target, (start.u, start.log_q), length, key, progress)
    else:
        chains = latent_chains(flow, target, start.u, length, key, progress)
    sentence = f"{_NAMES[method]}: {len(start.u)} chains of {length} draws, acceptance {chains.acceptance:.0%}"
    return Refined(chains, sentence)


def judge_refined(
    flow: AbstractSampler, target: Target, refined: Refined, before: Verdict, key: PRNGKeyArray
) -> tuple[Verdict, Estimate | None]:
    """(the verdict on the chains, the log evidence by a bridge from the flow to them)."""
    draws = refined.chains.draws
    own_key, leak_key = split_on_host(key, 2)
    own, log_q = draw_and_score(flow, own_key, _BRIDGE_DRAWS)
    verdict = judge_chains(draws, np.asarray(own, float), before.khat, missed_mode=before.missed_mode)
    if not isinstance(flow, AbstractDistribution) or not verdict.ess > 1:
        return verdict, None
    rows = draws.reshape(-1, draws.shape[-1])
    log_p, log_q_there = (np.asarray(x, float) for x in (log_density_of_rows(target, rows), score(flow, rows)))
    of_q = np.asarray(log_density_of_rows(target, own), float) - log_q
    evidence = Estimate(*bridge(np.where(np.isnan(of_q), -np.inf, of_q), log_p - log_q_there, verdict.ess))
    if verdict.ok:
        # chains that a flow proposes for stay where it has density, and agree with one another there
        even = Corrected(rows, np.full(len(rows), 1 / len(rows)), log_p, log_q_there)
        failed = missed_mass(flow, target, even, evidence.value, leak_key, doubtful=before.khat >= _DOUBTFUL)
        verdict = refused(verdict, failed) if failed else verdict
    return verdict, evidence
