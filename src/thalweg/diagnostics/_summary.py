"""One row of numbers a scalar quantity."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from thalweg._core import requirement
from thalweg.diagnostics._ess import mcse_mean
from thalweg.diagnostics._evidence import weighted_quantile
from thalweg.diagnostics._psis import parameter_khat
from thalweg.diagnostics._weights import as_log_weights

_LEVELS = np.array([0.05, 0.5, 0.95])


class SummaryRow(NamedTuple):
    """A scalar quantity.

    Attributes:
        name: `theta[0,1]`, say.
        mean: its mean.
        sd: its standard deviation.
        q05: its 5 % quantile.
        q50: its median.
        q95: its 95 % quantile.
        mcse: the standard error of the mean.
        khat: the k-hat of the mean (`parameter_khat`): above 0.7 the mean and its error are not to be relied on, as
            where a tail is so heavy that there is none.
    """

    name: str
    mean: float
    sd: float
    q05: float
    q50: float
    q95: float
    mcse: float
    khat: float


def summarise(
    draws: Mapping[str, np.ndarray],
    log_weights: np.ndarray | None = None,
    *,
    raw_log_weights: np.ndarray | None = None,
    chains: int | None = None,
) -> list[SummaryRow]:
    """Summarise independent draws, weighted or not, or chains, in the order of the names.

    The standard error of the mean is sd / sqrt(S), or sqrt(sum w_i^2 (x_i - mean)^2) under normalised weights w. The
    sd divides by S - 1 without weights and by the sum of the weights with them. A quantity that is not finite
    somewhere gets NaN or infinite numbers, without a warning.

    Args:
        draws: name -> (S, *shape), booleans and integers too.
        log_weights: (S,), up to a constant; None for plain draws.
        raw_log_weights: (S,), as they were before they were smoothed, for the k-hat; None: as they are.
        chains: the draws are so many chains, one after the other: the error of the mean is sd / sqrt(ESS).

    Returns:
        One row a scalar, array elements in C order.
    """
    rows = []
    weights = None if log_weights is None else as_log_weights(log_weights)
    raw = weights if raw_log_weights is None else raw_log_weights
    for name, values in draws.items():
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 0 or array.shape[0] == 0:
            raise ValueError(requirement(f"draws[{name!r}]", "have draws along its first axis", array.shape))
        columns = array.reshape(array.shape[0], -1)
        with np.errstate(invalid="ignore", over="ignore"):
            numbers = _plain(columns) if weights is None else _weighted(columns, weights)
            if chains is not None:
                numbers[-1] = [mcse_mean(column.reshape(chains, -1)) for column in columns.T]
        khats = _khats(columns, np.zeros(len(columns)) if raw is None else raw)
        names = _element_names(name, array.shape[1:])
        numbers = np.concatenate([numbers, khats[None]])
        rows += [SummaryRow(label, *map(float, row)) for label, row in zip(names, numbers.T, strict=True)]
    return rows


def _khats(columns: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """The k-hat of every mean; inf where a draw with weight is not finite."""
    counted = np.isfinite(log_weights)
    lost = ~np.isfinite(columns[counted]).all(axis=0)
    kept = np.where(counted[:, None] & ~lost, columns, 0.0)
    return np.where(lost, np.inf, parameter_khat(kept, log_weights))


def _plain(columns: np.ndarray) -> np.ndarray:
    count = columns.shape[0]
    sd = np.std(columns, axis=0, ddof=1) if count > 1 else np.full(columns.shape[1], np.nan)
    quantiles = np.quantile(columns, _LEVELS, axis=0)
    return np.stack([np.mean(columns, axis=0), sd, *quantiles, sd / np.sqrt(count)])


def _weighted(columns: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    quantiles = weighted_quantile(columns, _LEVELS, log_weights)  # first: it checks the number of rows
    weights = np.exp(log_weights - np.max(log_weights))
    weights = (weights / np.sum(weights))[:, None]
    counted = np.where(weights > 0, columns, 0.0)  # a draw of zero weight may be infinite
    mean = np.sum(weights * counted, axis=0)
    squares = (counted - mean) ** 2
    sd = np.sqrt(np.sum(weights * squares, axis=0))
    return np.stack([mean, sd, *quantiles, np.sqrt(np.sum(weights**2 * squares, axis=0))])


def _element_names(name: str, shape: tuple[int, ...]) -> list[str]:
    return [f"{name}[{','.join(map(str, index))}]" if index else name for index in np.ndindex(*shape)]
