"""Effective sample sizes of weights and of chains, and R-hat.

Source for the chains: Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), "Rank-normalization, folding, and
localization: an improved R-hat", Bayesian Analysis 16. `draws` is (chains, draws) throughout, of one quantity; what
cannot be judged (a value that is not finite, fewer than four draws) is NaN.
"""

import math

import numpy as np

from thalweg._core import log_sum_exp, requirement
from thalweg.diagnostics._weights import as_log_weights

_FEWEST_DRAWS = 4
_EVEN_SHARE, _EVEN_LARGEST = 0.95, 10


def importance_ess(log_weights: np.ndarray) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2 of log weights (S,), between 1 and S."""
    checked = as_log_weights(log_weights)
    weights = np.exp(checked - np.max(checked))
    return float(np.sum(weights) ** 2 / np.sum(weights**2))


def all_but_even(log_weights: np.ndarray) -> bool:
    """Whether raw weights are so even that the shape of their tail does not matter.

    An effective share of 0.95, and none above 10 times their mean: a tail that starts so low says nothing of what it
    adds up to. Smoothed weights must not be asked: smoothing hides the one draw that found what all others missed.
    """
    checked = as_log_weights(log_weights)
    largest = np.max(checked) - log_sum_exp(checked) + np.log(checked.size)
    return bool(importance_ess(checked) >= _EVEN_SHARE * checked.size and largest < np.log(_EVEN_LARGEST))


def bulk_ess(draws: np.ndarray) -> float:
    """Effective sample size of rank-normalised split chains: how well the centre is known."""
    checked = _as_chains(draws)
    return _ess(_rank_normalised(_split(checked))) if _judgeable(checked) else np.nan


def tail_ess(draws: np.ndarray) -> float:
    """The smaller effective sample size of the 5 % and 95 % quantiles."""
    checked = _as_chains(draws)
    if not _judgeable(checked):
        return np.nan
    return min(_ess(_split(checked <= quantile).astype(float)) for quantile in np.quantile(checked, [0.05, 0.95]))


def rhat(draws: np.ndarray) -> float:
    """Rank-normalised split R-hat, the larger of that of the draws and of the folded draws; NaN for one chain."""
    checked = _as_chains(draws)
    if not _judgeable(checked) or checked.shape[0] < 2:
        return np.nan
    split = _split(checked)
    folded = np.abs(split - np.median(split))
    return max(_split_rhat(_rank_normalised(split)), _split_rhat(_rank_normalised(folded)))


def mcse_mean(draws: np.ndarray) -> float:
    """Monte Carlo standard error of the mean: sd / sqrt(ESS of the split chains)."""
    checked = _as_chains(draws)
    if not _judgeable(checked):
        return np.nan
    return float(np.std(checked, ddof=1) / np.sqrt(_ess(_split(checked))))


def _as_chains(draws: np.ndarray) -> np.ndarray:
    checked = np.asarray(draws, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[0] == 0:
        raise ValueError(requirement("draws", "have shape (chains, draws)", checked.shape))
    return checked


def _judgeable(draws: np.ndarray) -> bool:
    return draws.shape[1] >= _FEWEST_DRAWS and bool(np.all(np.isfinite(draws)))


def _split(draws: np.ndarray) -> np.ndarray:
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _rank_normalised(draws: np.ndarray) -> np.ndarray:
    """Normal scores of the pooled ranks, with Blom's offset."""
    # 0.6 s, which `import thalweg` shall not cost
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return ndtri((rankdata(draws).reshape(draws.shape) - 0.375) / (draws.size + 0.25))


def _split_rhat(draws: np.ndarray) -> float:
    length = draws.shape[1]
    between = np.var(np.mean(draws, axis=1), ddof=1)
    within = np.mean(np.var(draws, axis=1, ddof=1))
    if within == 0:
        return np.nan if between == 0 else np.inf
    return float(np.sqrt((length - 1) / length + between / within))


def _autocovariance(draws: np.ndarray) -> np.ndarray:
    length = draws.shape[1]
    padded = 2 ** math.ceil(math.log2(2 * length))
    spectrum = np.fft.rfft(draws - np.mean(draws, axis=1, keepdims=True), padded, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, padded, axis=1)[:, :length] / length


def _ess(draws: np.ndarray) -> float:
    """Effective sample size by Geyer's initial monotone sequence over the chains of `draws`."""
    chains, length = draws.shape
    if np.ptp(draws) < np.finfo(float).resolution:
        return float(draws.size)
    covariance = np.mean(_autocovariance(draws), axis=0)
    within = covariance[0] * length / (length - 1)
    total = covariance[0] + (np.var(np.mean(draws, axis=1), ddof=1) if chains > 1 else 0.0)
    correlation = 1.0 - (within - covariance) / total
    correlation[0] = 1.0
    # Geyer: sums of neighbours are positive and fall for a reversible chain; of the last one only the first half counts
    count = max((length - 3) // 2, 0) + 1
    pairs = correlation[0 : 2 * count : 2] + correlation[1 : 2 * count : 2]
    ended = np.flatnonzero(pairs <= 0)
    kept = int(ended[0]) if ended.size else count - 1
    time = -1.0 + 2.0 * np.sum(np.minimum.accumulate(pairs[:kept])) + max(correlation[2 * kept], 0.0)
    return float(draws.size / max(time, 1.0 / np.log10(draws.size)))
