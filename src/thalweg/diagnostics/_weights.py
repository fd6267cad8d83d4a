"""The one check and the one normalisation of log weights."""

import numpy as np

from thalweg._core import log_sum_exp, requirement


def as_log_weights(log_weights: np.ndarray) -> np.ndarray:
    """`log_weights` as a float64 vector; -inf (a draw outside the target's support) is a weight like any other.

    Raises:
        ValueError: if it is not a non-empty vector, or holds NaN or +inf, or nothing but -inf.
    """
    checked = np.asarray(log_weights, dtype=np.float64)
    if checked.ndim != 1 or checked.size == 0:
        raise ValueError(requirement("log_weights", "be a vector of at least one number", f"shape {checked.shape}"))
    bad = np.count_nonzero(np.isnan(checked) | (checked == np.inf))
    if bad:
        remedy = "look for the draws at which the target's log density is not finite"
        raise ValueError(
            requirement("log_weights", "be finite or -inf", f"{bad} NaN or +inf of {checked.size}", remedy)
        )
    if np.max(checked) == -np.inf:
        remedy = "no draw lies in the target's support"
        raise ValueError(requirement("log_weights", "hold at least one finite number", "only -inf", remedy))
    return checked


def normalised(log_weights: np.ndarray) -> np.ndarray:
    """Log weights shifted so that the weights sum to one."""
    shifted = log_weights - np.max(log_weights)
    return shifted - log_sum_exp(shifted)
