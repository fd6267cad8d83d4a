"""Log evidence from weights, or from a bridge between two sets of draws; quantiles of weighted draws."""

from typing import NamedTuple

import numpy as np

from thalweg._core import requirement
from thalweg.diagnostics._psis import mean_error
from thalweg.diagnostics._weights import as_log_weights


class LogMean(NamedTuple):
    """A logarithm of a mean and its standard error, both in nats."""

    value: float
    standard_error: float


def log_mean_exp(log_weights: np.ndarray) -> LogMean:
    """The log evidence log((1/S) sum w) of raw log weights (S,), with the delta method's standard error.

    The error is sd(w) / (mean(w) sqrt(S)), or that of a Pareto tail (`mean_error`) where that is larger, as where k-hat
    is: zero for constant weights, inf for a single one.
    """
    checked = as_log_weights(log_weights)
    largest = np.max(checked)
    weights = np.exp(checked - largest)
    mean = np.mean(weights)
    error = np.std(weights, ddof=1) / (mean * np.sqrt(weights.size)) if weights.size > 1 else np.inf
    of_tail = mean_error(checked)
    return LogMean(float(largest + np.log(mean)), float(np.fmax(error, of_tail)))


_BRIDGES = 1000
_SETTLED = 1e-10


def bridge(of_q: np.ndarray, of_p: np.ndarray, ess: float) -> LogMean:
    r"""Log of the normalising constant of p from draws of q and of p, by the optimal bridge.

    $Z = \frac{E_q[p\, h]}{E_p[q\, h]}$ with $h = 1 / (s_p\, p / Z + s_q\, q)$, s the shares of effective draws,
    iterated to its fixed point. Its error stays finite where q's tails are too light for importance weights.

    Args:
        of_q: log p - log q at independent draws of q, (n,); -inf where p is 0.
        of_p: log p - log q at draws of p, (m,).
        ess: the effective number of these.

    Source: Meng and Wong 1996; the error after Fruehwirth-Schnatter 2004.
    """
    q, p = np.asarray(of_q, float), np.asarray(of_p, float)
    share_p = ess / (ess + len(q))
    log_p, log_q = np.log(share_p), np.log1p(-share_p)
    value = float(np.median(p))
    for _ in range(_BRIDGES):
        above, below = (log_mean_exp(x) for x in _bridged(q, p, value, log_p, log_q))
        before, value = value, above.value - below.value
        if abs(value - before) < _SETTLED * max(1.0, abs(value)):
            break
    # p's draws count for no more than their effective number
    error = np.hypot(above.standard_error, below.standard_error * np.sqrt(len(p) / ess))
    return LogMean(float(value), float(error))


def _bridged(q: np.ndarray, p: np.ndarray, value: float, log_p: float, log_q: float) -> tuple[np.ndarray, np.ndarray]:
    """(log p h at draws of q, log q h at draws of p), for one guess of log Z."""
    return q - np.logaddexp(log_p + q - value, log_q), -np.logaddexp(log_p + p - value, log_q)


def weighted_quantile(values: np.ndarray, probabilities: np.ndarray | float, log_weights: np.ndarray) -> np.ndarray:
    """Quantiles of weighted draws, linear between draws; with equal weights those of `numpy.quantile`.

    Draw i (in ascending order) stands at the middle of its step of the cumulated weights, rescaled so that the first
    stands at 0 and the last at 1. Draws of zero weight count for nothing.

    Args:
        values: (S, *shape).
        probabilities: a number or an array, in [0, 1].
        log_weights: (S,), up to a constant.

    Returns:
        probabilities.shape + shape.
    """
    checked = as_log_weights(log_weights)
    draws = np.asarray(values, dtype=np.float64)
    if draws.shape[:1] != checked.shape:
        raise ValueError(requirement("values", f"have {checked.size} rows, as log_weights", f"shape {draws.shape}"))
    levels = np.asarray(probabilities, dtype=np.float64)
    if not np.all((levels >= 0) & (levels <= 1)):
        raise ValueError(requirement("probabilities", "lie between 0 and 1", probabilities))
    weights = np.exp(checked - np.max(checked))
    counted = weights > 0
    columns, weights = draws[counted].reshape(np.count_nonzero(counted), -1), weights[counted]
    order = np.argsort(columns, axis=0)
    columns, steps = np.take_along_axis(columns, order, axis=0), weights[order]
    middles = np.cumsum(steps, axis=0) - steps / 2
    span = np.maximum(middles[-1] - middles[0], np.finfo(float).tiny)  # one draw alone: it is every quantile
    positions = (middles - middles[0]) / span
    found = [np.interp(levels.ravel(), positions[:, j], columns[:, j]) for j in range(columns.shape[1])]
    return np.array(found, dtype=np.float64).reshape(columns.shape[1], -1).T.reshape(levels.shape + draws.shape[1:])
