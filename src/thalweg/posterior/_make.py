"""Posteriors from a fit, and from a file."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from thalweg._core import (
    FileError,
    PRNGKeyArray,
    Seed,
    as_key,
    numpy_rng,
    precision,
    read_file,
    requirement,
    split_on_host,
)
from thalweg.diagnostics import all_but_even, importance_ess, khat_threshold, log_mean_exp, psis
from thalweg.distributions import AbstractSampler, Mixture
from thalweg.posterior._citation import package_versions
from thalweg.posterior._draws import WeighedDraws, is_affine, weigh
from thalweg.posterior._estimates import Estimate
from thalweg.posterior._leak import UNSEEN, Corrected, at_an_end, missed_mass
from thalweg.posterior._posterior import KIND, POOL, SAVED, Posterior, complaint_of
from thalweg.posterior._tails import look_at_tails
from thalweg.posterior._verdict import Verdict, judge
from thalweg.run import Limit
from thalweg.targets import Target, check_same_target, describe_target, is_mostly_rounding

_HEAVY_KHAT = 0.5
"""Weights with a longer tail than this may belong to a target with one."""
_FINEST = 0.25
"""Nats: rounding of the log density by more than this blurs the weights."""
_SHARP, _MORE, _MOST_MORE = 0.005, 5000, 10
"""Nats: a standard error of the evidence that is small enough, since what the verdict may not see is about as large;
further draws at a time, and how often at most."""
_UNSEEN_PLACES = 0.003
"""So large a one a mixture of Gaussians: places that hold less than 0.005 together are not looked for."""
_SUSPECT, _LOOKED_AT = 1e6, 200
"""Size of a log density that may be but rounding; draws by which that is seen."""


def make_posterior(
    flow: AbstractSampler,
    target: Target,
    *,
    seed: Seed,
    dtype: str,
    trace: dict[str, np.ndarray],
    settings: dict[str, Any],
    steps_taken: tuple[str, ...],
    failed: str | None = None,
    missed_mode: str | None = None,
    weighed: WeighedDraws | None = None,
) -> Posterior:
    """Weigh draws of a fitted flow and put together the posterior with its verdict.

    Args:
        flow: fitted, on R^d.
        target: the log density.
        seed: for the draws that are weighed.
        dtype: of the flow.
        trace: the fit's record.
        settings: what decided the result.
        steps_taken: what was done, in sentences.
        failed: a sentence where the fit itself failed.
        missed_mode: a sentence on a mode that the flow is known to leave out.
        weighed: draws that have been weighed already.
    """
    weighed = weighed or weigh(flow, target, as_key(seed), POOL)
    log_p, log_proposal, log_q = (np.asarray(a, float) for a in (weighed.log_p, weighed.log_proposal, weighed.log_q))
    raw = weighed.log_weights
    unresolved = _unresolved(target, weighed)
    complaint = unresolved or complaint_of(raw, weighed.u, target)
    if complaint:
        float64 = "" if unresolved or weighed.u.dtype == np.float64 else ", or try float64"
        advice = (f"mend the log density there{float64}",)
        verdict = Verdict(
            ok=False, raw_ok=False, khat=np.inf, ess=0.0, n_draws=len(raw), reasons=(complaint,), advice=advice
        )
        elbo, evidence, raw = None, None, None
    else:
        # the weights that make the flow's own draws of these
        own = np.exp(log_q - log_proposal)
        evidence = Estimate(*log_mean_exp(raw))
        smoothed = psis(raw)
        failed = failed or at_an_end(target, weighed.u, np.exp(smoothed.log_weights))
        evidence = evidence.widened(_unseen(flow))
        # where weights are all one, the rounding of log q, about the same at all draws, is all that is wrong with it
        evidence = evidence.widened(float(np.spacing(np.median(np.abs(log_q)).astype(weighed.log_q.dtype))))
        values = np.asarray(weighed.u)
        verdict = judge(raw, values, own, failed=failed, missed_mode=missed_mode)
        # what is refused already is not looked at for more
        if verdict.ok:
            drawn = Corrected(weighed.u, np.exp(smoothed.log_weights), log_p, log_q)
            rng = numpy_rng(as_key(seed))
            corrected = rng.choice(weighed.u, POOL, p=drawn.share / drawn.share.sum())
            light = smoothed.khat <= _HEAVY_KHAT or all_but_even(raw)
            tails = look_at_tails(
                target, corrected, importance_ess(raw), rng, chosen_from=weighed.u[drawn.share > 0], briefly=light
            )
            evidence = evidence.widened(tails.missing)
            # chains cost more
            doubtful = bool(smoothed.khat >= khat_threshold(len(raw)) and all_but_even(raw))
            failed = tails.told or missed_mass(flow, target, drawn, evidence.value, as_key(seed), doubtful=doubtful)
            if failed:
                verdict = judge(raw, values, own, failed=failed)
        # their mean is 1: what is the same for all draws need not be multiplied by their noise
        terms = evidence.value + own * (log_p - log_q - evidence.value)
        elbo = (
            Estimate(float(terms.mean()), float(terms.std() / np.sqrt(len(raw)))) if np.isfinite(terms).all() else None
        )
    name = target.name or "model"
    return Posterior(
        flow,
        target.space,
        target,
        elbo,
        evidence,
        verdict,
        raw,
        trace,
        settings,
        steps_taken,
        dtype,
        package_versions(),
        name,
        describe_target(target),
    )


def _unseen(flow: AbstractSampler) -> float:
    """The share of the mass that a flow may lack where nothing says so."""
    if is_affine(flow):
        return 0.0
    return _UNSEEN_PLACES if isinstance(flow, Mixture) and is_affine(flow.components) else UNSEEN


def with_sharper_evidence(posterior: Posterior, key: PRNGKeyArray, limit: Limit) -> Posterior:
    """The same with its evidence from further weighed draws, beside those of the verdict, until that is sharp enough.

    Args:
        posterior: trusted by its weights; another is given back as it is.
        key: for the draws, 50,000 at most.
        limit: no more once it is over.
    """
    target, raw, evidence = posterior.target, posterior.log_weights, posterior.log_evidence
    if target is None or raw is None or evidence is None or posterior.chains is not None or not posterior.verdict.ok:
        return posterior
    noise = log_mean_exp(raw)[1]
    # what the error holds beside the noise of the draws stays
    beside = math.sqrt(max(evidence.standard_error**2 - noise**2, 0.0))
    pieces = min(_MOST_MORE, math.ceil(((noise / _SHARP) ** 2 - 1) * len(raw) / _MORE))
    known = [raw]
    for own in split_on_host(key, max(pieces, 0)):
        if limit.is_over:
            break
        more = weigh(posterior.flow, target, own, _MORE)
        known.append(more.log_weights)
        if complaint_of(known[-1], more.u, target):
            return posterior
    sharper = Estimate(*log_mean_exp(np.concatenate(known))).widened(beside)
    return dataclasses.replace(posterior, log_evidence=sharper)


def _unresolved(target: Target, weighed: WeighedDraws) -> str | None:
    """A sentence where the log density is so large that its precision cannot tell one draw from another."""
    seen = np.isfinite(weighed.log_p) & np.isfinite(weighed.u).all(axis=1)
    size = float(np.median(np.abs(weighed.log_p[seen]))) if seen.any() else 0.0
    gap = float(np.spacing(np.asarray(size, weighed.log_p.dtype)))
    if size > _SUSPECT and is_mostly_rounding(target, weighed.u[seen][:_LOOKED_AT]):
        return (
            f"the log density is but rounding where the fit ran off to, about {size:.3g} in size: compute it without "
            "what overflows or cancels there (of a covariance matrix take the Cholesky factor, not inverse and "
            "determinant), or bound the parameters"
        )
    if gap <= _FINEST:
        return None
    remedy = ("" if weighed.log_p.dtype == np.float64 else "use float64, or ") + "leave out its constants"
    return f"the log density is about {size:.3g} in size, where {weighed.log_p.dtype} resolves {gap:.2g} nats: {remedy}"


def load(path: str | Path, target: Target | None = None) -> Posterior:
    """A posterior from a `.thalweg` file.

    Args:
        path: the file.
        target: the log density that it was fitted to. Without it the posterior samples and scores; with it, it
            corrects too.

    Raises:
        FileNotFoundError: if there is no such file.
        FileError: if it is cut short, changed, of a newer version, or something else; a ValueError.
        ValueError: if the target is not the one that was fitted: other parameters, data or log density.
    """
    if target is not None and not isinstance(target, Target):
        raise ValueError(requirement("target", "be a Target or None", type(target).__name__))
    with precision("float64"):
        record = read_file(path, KIND)
    if not isinstance(record, dict):
        raise FileError(f"{path} was changed since it was written: it holds a {type(record).__name__}")
    if missing := [name for name in SAVED if name not in record]:
        raise FileError(f"{path} was written by another thalweg, without {', '.join(missing)}; fit again")
    if target is not None and record["space"] is not None:
        here, there = target.space.shapes, record["space"].shapes
        if here != there:
            raise ValueError(requirement("target", f"have the file's parameters {there}", here))
    if target is not None:
        with precision(record["dtype"]):
            target = target.turned(record["described"].get("turns", {}))
            if record["described"].get("noncentred"):
                target = target.noncentred or target
            check_same_target(target.in_default_precision(), record["described"])
    space = record["space"] if target is None else target.space
    return Posterior(**{**{k: record[k] for k in SAVED}, "space": space, "target": target})
