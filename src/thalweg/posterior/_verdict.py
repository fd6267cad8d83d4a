"""Whether to believe the answer, and what to do if not."""

import dataclasses
import math

import numpy as np

from thalweg._core import register
from thalweg.diagnostics import all_but_even, bulk_ess, importance_ess, khat_threshold, psis, rhat, tail_ess

_LEAST_ESS = 500
"""Of 10,000: as many corrected draws, chosen from four times as many, are then worth 2,000."""
_DOUBTFUL_KHAT = 0.5
_LEAST_SHARE_IF_DOUBTFUL = 0.1
_LEAST_SHARE_OF_SMOOTHED = 0.5
_LARGEST_SHIFT, _LARGEST_RATIO = 0.1, 1.1
LARGEST_RHAT, _LEAST_CHAIN_ESS = 1.01, 400
_REFINE_FURTHER = 'refine for longer (n=), by method="neutra" if this was not it, or fit a richer flow first'


NOT_LOOKED_FOR = "the budget was used up before other modes were looked for"


@register
@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the importance weights, or chains, say of a posterior.

    Attributes:
        ok: whether the corrected draws (importance-resampled) can be trusted.
        raw_ok: whether the flow's own draws can, as they are.
        khat: Pareto shape of the weights' tail; below 0.7 (less for few draws) corrected draws are reliable.
        ess: effective number of the weighted draws; of chains the least of all parameters', of bulk and tail.
        n_draws: how many draws were weighed, or made by the chains.
        reasons: sentences, why.
        advice: sentences, what to do; empty where nothing needs doing.
        rhat: the largest R-hat of the chains that made the corrected draws; None where weights did.
        missed_mode: a sentence on a mode that the flow is known to leave out, one of `reasons`; or None.
    """

    ok: bool
    raw_ok: bool
    khat: float
    ess: float
    n_draws: int
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    rhat: float | None = None
    missed_mode: str | None = None

    def __str__(self) -> str:
        """One sentence."""
        if self.raw_ok:
            head = "Trust it: the flow itself matches the posterior"
        elif self.ok:
            head = "Trust the corrected draws (resample), not the flow's raw ones (sample)"
        else:
            head = "Do not trust it"
        shape = f"k-hat {self.khat:.2f}" if self.rhat is None else f"R-hat {self.rhat:.3f}"
        if self.ok and self.rhat is None and self.khat >= khat_threshold(self.n_draws):
            shape += " of weights that are all but even"
        figures = f"{shape}, {self.ess:,.0f} effective of {self.n_draws:,} draws"
        tail = f" ({figures})" + (": " + "; ".join(self.reasons) if self.reasons else "")
        return head + tail + ("." if not self.advice else ". To do: " + "; ".join(self.advice) + ".")


def judge(
    raw_log_weights: np.ndarray,
    values: np.ndarray,
    own: np.ndarray | None = None,
    *,
    failed: str | None = None,
    missed_mode: str | None = None,
) -> Verdict:
    """The verdict from one set of weighted draws.

    Args:
        raw_log_weights: log p less the log density that they were drawn with, of S draws.
        values: the draws in unconstrained coordinates, (S, d), in the fit's precision.
        own: weights that make them draws of the flow; None for 1.
        failed: a sentence where the fit itself failed.
        missed_mode: a sentence on a mode that the flow leaves out.

    The corrected draws pass if k-hat is below the threshold of Vehtari et al. 2024 for S draws, or the raw weights are
    all but even (`all_but_even`), and the effective sample size (the smaller of raw and smoothed weights') is at least
    500, half of what it is after smoothing, and a tenth of the draws where k-hat exceeds 0.5 (a k-hat of 0.64 has been
    seen with an effective share of 0.05 and a mean off by 0.18 sd). The raw draws pass if besides no mean moves by more
    than 0.1 sd, and no sd by more than a tenth, between raw and corrected.
    """
    n = len(raw_log_weights)
    smoothed = psis(raw_log_weights)
    khat = float(smoothed.khat)
    raw_ess, smoothed_ess = importance_ess(raw_log_weights), importance_ess(smoothed.log_weights)
    ess = min(raw_ess, smoothed_ess)
    threshold = khat_threshold(n)
    told = [sentence for sentence in (failed, missed_mode) if sentence]
    reasons, advice = [*told], []
    if not (khat < threshold or all_but_even(raw_log_weights)):
        reasons.append(f"the weights' tail is too heavy (k-hat {khat:.2f}, at most {threshold:.2f} is reliable)")
    if raw_ess < _LEAST_SHARE_OF_SMOOTHED * smoothed_ess:
        # a draw that found what the others missed weighs in the one, is smoothed away in the other
        reasons.append(
            f"a few draws weigh more than the others' tail lets expect ({raw_ess:,.0f} effective draws, smoothed "
            f"{smoothed_ess:,.0f}), so a part of the posterior may be missed"
        )
    if ess < _LEAST_ESS:
        reasons.append(f"only {ess:.0f} of {n:,} draws are effective")
    elif khat > _DOUBTFUL_KHAT and ess < _LEAST_SHARE_IF_DOUBTFUL * n:
        reasons.append(f"a heavy tail (k-hat {khat:.2f}) comes with few effective draws ({ess:.0f} of {n:,})")
    ok = not reasons
    shift, ratio = _movement(values, smoothed.log_weights, np.ones(n) if own is None else own)
    raw_ok = ok and shift <= _LARGEST_SHIFT and abs(math.log(ratio)) <= math.log(_LARGEST_RATIO)
    if missed_mode == NOT_LOOKED_FOR:
        advice.append("give more of the budget")
    elif missed_mode:
        advice.append('begin at the modes (`init=`), or let flow="auto" make a mixture of them')
    if reasons and not (missed_mode and len(reasons) == 1):
        advice.append("give more steps, or a richer flow such as spline")
        float64 = "" if values.dtype == np.float64 else ", or try float64"
        advice.append(f"check the parametrisation (non-centred hierarchies fit better){float64}")
    return Verdict(ok, raw_ok, khat, ess, n, tuple(reasons), tuple(advice), missed_mode=missed_mode)


def convergence(chains: np.ndarray) -> tuple[float, float]:
    """(the largest R-hat, the least of bulk and tail effective sizes) of all coordinates of chains, (chains, n, d)."""
    columns = np.moveaxis(np.asarray(chains, float), -1, 0)
    worst = float(np.max([rhat(c) for c in columns]))
    return worst, float(np.min([min(bulk_ess(c), tail_ess(c)) for c in columns]))


def judge_chains(chains: np.ndarray, own: np.ndarray, khat: float, *, missed_mode: str | None = None) -> Verdict:
    """The verdict from chains that leave the target as it is.

    They pass where R-hat is at most 1.01 and bulk and tail effective sizes are at least 400 for every coordinate
    (Vehtari et al. 2021). The flow's raw draws pass as `judge` has it, k-hat included.

    Args:
        chains: (chains, n, d), unconstrained.
        own: draws of the flow, (S, d).
        khat: of the flow's weights.
        missed_mode: a sentence on a mode that the flow leaves out, where chains begun at its draws will not go either.
    """
    worst, ess = convergence(chains)
    reasons = [missed_mode] if missed_mode else []
    if not worst <= LARGEST_RHAT:
        reasons.append(f"the chains disagree (R-hat {worst:.3f}, at most {LARGEST_RHAT} is reliable)")
    if not ess >= _LEAST_CHAIN_ESS:
        reasons.append(f"only {ess:.0f} of the chains' draws are effective")
    advice = (_REFINE_FURTHER,) if len(reasons) > (missed_mode is not None) else ()
    pooled = np.concatenate([np.asarray(chains, float).reshape(-1, chains.shape[-1]), own])
    ours = np.arange(len(pooled)) >= len(pooled) - len(own)
    shift, ratio = _movement(pooled, np.where(ours, -np.inf, 0.0), ours.astype(float))
    light = bool(khat < khat_threshold(len(own)))
    raw_ok = not reasons and light and shift <= _LARGEST_SHIFT and abs(math.log(ratio)) <= math.log(_LARGEST_RATIO)
    n_draws = chains.shape[0] * chains.shape[1]
    return Verdict(not reasons, raw_ok, khat, ess, n_draws, tuple(reasons), advice, worst, missed_mode)


def refused(verdict: Verdict, why: str) -> Verdict:
    """A verdict on chains that trusted them, now that they are known to miss a part of the target."""
    return dataclasses.replace(verdict, ok=False, raw_ok=False, reasons=(why,), advice=(_REFINE_FURTHER,))


def _movement(values: np.ndarray, log_weights: np.ndarray, own: np.ndarray) -> tuple[float, float]:
    """(largest shift of a mean in sd, the ratio of sds furthest from 1), corrected against raw."""

    def moments(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = weights[:, None] / weights.sum()
        mean = (w * values).sum(0)
        return mean, np.sqrt(np.maximum((w * (values - mean) ** 2).sum(0), np.finfo(float).tiny))

    values = values.astype(float)
    (mean, sd), (raw_mean, raw_sd) = moments(np.exp(log_weights)), moments(own)
    shift = np.max(np.abs(raw_mean - mean) / sd)
    ratios = np.log(raw_sd / sd)
    return float(shift), float(np.exp(ratios[np.argmax(np.abs(ratios))]))
