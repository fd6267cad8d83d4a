"""The log of a mean of weights with its standard error, and quantiles of weighted draws."""

from typing import NamedTuple

import numpy as np

from thalweg._core import requirement
from thalweg.diagnostics._weights import as_log_weights


class LogMean(NamedTuple):
    """A logarithm of a mean and its standard error, both in nats."""

    value: float
    standard_error: float


def log_mean_exp(log_weights: np.ndarray) -> LogMean:
    """The log evidence log((1/S) sum w) of raw log weights (S,), with the delta method's standard error.

    The error is sd(w) / (mean(w) sqrt(S)): zero for constant weights, inf for a single one. It is itself an estimate,
    and too small where k-hat is large.
    """
    checked = as_log_weights(log_weights)
    largest = np.max(checked)
    weights = np.exp(checked - largest)
    mean = np.mean(weights)
    error = np.std(weights, ddof=1) / (mean * np.sqrt(weights.size)) if weights.size > 1 else np.inf
    return LogMean(float(largest + np.log(mean)), float(error))


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
