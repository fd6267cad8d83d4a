"""Pareto smoothed importance sampling, and the k-hat that says whether weights can be trusted.

Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling", JMLR 25; the fit is
that of Zhang and Stephens (2009), "A new and efficient estimation method for the generalized Pareto distribution".
"""

from typing import NamedTuple

import numpy as np

from thalweg._core import log_sum_exp, requirement
from thalweg.diagnostics._weights import as_log_weights, normalised

_FEWEST_EXCEEDANCES = 5  # below this a two-parameter fit says nothing
_ROUNDING = 1e-3  # a tail whose log weights differ by less is constant, whatever its few ties do
_PRIOR_DRAWS, _PRIOR_KHAT = 10, 0.5  # the weak prior of Vehtari et al., Appendix C


class ParetoFit(NamedTuple):
    """A generalised Pareto distribution: P(X > x) = (1 + khat x / scale)^(-1 / khat) for x > 0."""

    khat: float
    scale: float


class Psis(NamedTuple):
    """What `psis` returns: smoothed log weights (S,) whose weights sum to one, the k-hat, the length of the tail."""

    log_weights: np.ndarray
    khat: float
    tail_length: int


def khat_threshold(n: int) -> float:
    """The k-hat above which n weighted draws cannot be trusted: min(1 - 1 / log10(n), 0.7)."""
    return min(1.0 - 1.0 / np.log10(n), 0.7) if n > 1 else -np.inf


def psis(log_weights: np.ndarray) -> Psis:
    """Replace the largest weights by the expected order statistics of a Pareto tail fitted to them.

    The tail is the floor(min(0.2 S, 3 sqrt(S))) largest weights. Smoothed weights never exceed the largest raw one.

    Args:
        log_weights: (S,) log p - log q, up to a constant; -inf is allowed.

    Returns:
        Smoothed, normalised log weights in the order given, and k-hat. k-hat is -inf where the tail is constant (the
        weights are bounded, nothing to smooth), and inf where fewer than five weights stand above the tail's start
        (fewer than 25 draws, or nearly all weight on a handful): nothing can then be said for the weights.

    Raises:
        ValueError: if `log_weights` holds NaN, +inf, or nothing but -inf.
    """
    checked = as_log_weights(log_weights)
    scaled = checked - np.max(checked)
    size = scaled.size
    length = _tail_length(size)
    order = np.argsort(scaled, kind="stable")
    tail = order[size - length :]
    start = scaled[order[size - length - 1]] if length else -np.inf
    cutoff = np.exp(start)
    excess = np.exp(scaled[tail]) - cutoff
    fit = fit_pareto(excess[excess > 0])
    if not np.isfinite(fit.khat):
        khat = -np.inf if -start < _ROUNDING else fit.khat
        return Psis(normalised(checked), khat, length)
    probabilities = (np.arange(length) + 0.5) / length
    smoothed = scaled.copy()
    with np.errstate(divide="ignore"):  # a cutoff of zero weight may give log 0, which is that weight again
        smoothed[tail] = np.minimum(np.log(cutoff + _pareto_quantile(probabilities, fit)), 0.0)
    return Psis(normalised(smoothed), fit.khat, length)


_LARGEST_KHAT = 0.95
"""Beyond it a tail's mean is anybody's guess; its error is then given as that of this one."""


def mean_error(log_weights: np.ndarray) -> float:
    r"""The standard error of the mean weight, as a share of it, from the Pareto fit of the tail.

    The largest M of S weights are c + x with x generalised Pareto (shape k, scale sigma) of mean $\sigma / (1 - k)$,
    which is known as well as k and sigma are, by the fit's asymptotic covariance; the others by their own spread. Where
    k is 0.5 or more the weights have no variance, and the usual error, sd / sqrt(S), is of what happened to be drawn.

    Args:
        log_weights: (S,), up to a constant.

    Returns:
        NaN where there is no tail to fit.

    Source: Smith 1987, "Estimating tails of probability distributions", for the covariance.
    """
    scaled = as_log_weights(log_weights)
    weights = np.sort(np.exp(scaled - np.max(scaled)))
    size, length = weights.size, _tail_length(weights.size)
    if not length:
        return np.nan
    cutoff = weights[size - length - 1]
    excess = weights[size - length :] - cutoff
    fit = fit_pareto(excess[excess > 0])
    if not np.isfinite(fit.khat):
        return np.nan
    k = min(fit.khat, _LARGEST_KHAT)
    slope = np.array([fit.scale / (1 - k) ** 2, 1 / (1 - k)])
    covariance = (1 + k) * np.array([[1 + k, -fit.scale], [-fit.scale, 2 * fit.scale**2]]) / length
    of_tail = (length / size) ** 2 * slope @ covariance @ slope
    of_body = np.var(np.minimum(weights, cutoff)) / size
    # a tail that ends abruptly (k below -1) has no such covariance, and no error to speak of
    return float(np.sqrt(of_body + max(of_tail, 0.0)) / np.mean(weights))


def parameter_khat(values: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """The k-hat of every parameter's mean: the largest of the tails of w, of h w and of -h w.

    A mean of h under weights w needs moments of h w as well as of w, so a parameter with heavy tails can be beyond
    trust where the weights alone pass (Vehtari et al. 2024, section 2.4). A constant parameter has the k-hat of w.

    Args:
        values: (S, p), one column a parameter; finite.
        log_weights: (S,) raw (not smoothed) log weights.

    Returns:
        (p,).
    """
    checked = as_log_weights(log_weights)
    columns = np.asarray(values, dtype=np.float64)
    if columns.ndim != 2 or columns.shape[0] != checked.size:
        raise ValueError(requirement("values", f"have shape ({checked.size}, p)", columns.shape))
    weights = np.exp(checked - np.max(checked))
    shared = _tail_khat(weights)
    products = columns * weights[:, None]
    khats = [
        shared if np.ptp(column) == 0 else max(shared, _tail_khat(product), _tail_khat(-product))
        for column, product in zip(columns.T, products.T, strict=True)
    ]
    return np.array(khats, dtype=np.float64)


def fit_pareto(excess: np.ndarray) -> ParetoFit:
    """Fit a generalised Pareto distribution to positive, ascending exceedances over a threshold.

    The scale is that of Zhang and Stephens; k-hat is pulled towards 0.5 with the weight of ten draws.

    Returns:
        The fit; khat is -inf where the (five or more) exceedances are all equal, inf where there are fewer than five.
    """
    count = excess.size
    if count < _FEWEST_EXCEEDANCES:
        return ParetoFit(np.inf, np.nan)
    if excess[-1] == excess[0]:
        return ParetoFit(-np.inf, np.nan)
    # an excess of 1e-300 beside one of 1 may overflow here: such grid points get no weight, such fits khat = inf
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        points = 30 + int(np.sqrt(count))
        grid = 1.0 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
        grid = grid / (3.0 * excess[int(count / 4 + 0.5) - 1]) + 1.0 / excess[-1]
        shapes = np.mean(np.log1p(-grid[:, None] * excess), axis=1)
        profile = count * (np.log(-grid / shapes) - shapes - 1.0)
        profile = np.where(np.isfinite(profile), profile, -np.inf)
        grid_weights = np.exp(profile - log_sum_exp(profile))
        kept = grid_weights >= 10 * np.finfo(float).eps
        rate = np.sum(grid[kept] * grid_weights[kept]) / np.sum(grid_weights[kept])
        shape = np.mean(np.log1p(-rate * excess))
        scale = -shape / rate
    if not (np.isfinite(shape) and scale > 0):
        return ParetoFit(np.inf, np.nan)
    return ParetoFit(float((count * shape + _PRIOR_DRAWS * _PRIOR_KHAT) / (count + _PRIOR_DRAWS)), float(scale))


def _tail_length(size: int) -> int:
    length = int(min(0.2 * size, 3.0 * np.sqrt(size)))
    return length if length >= _FEWEST_EXCEEDANCES else 0


def _tail_khat(values: np.ndarray) -> float:
    """The k-hat of the right tail of `values` (S,)."""
    size, length = values.size, _tail_length(values.size)
    if length == 0:
        return np.inf
    largest = np.sort(np.partition(values, size - length - 1)[size - length - 1 :])
    excess = largest[1:] - largest[0]
    khat = fit_pareto(excess[excess > 0]).khat
    flat = excess[-1] <= _ROUNDING * abs(largest[-1])
    return -np.inf if khat == np.inf and flat else khat


def _pareto_quantile(probabilities: np.ndarray, fit: ParetoFit) -> np.ndarray:
    exponential = -np.log1p(-probabilities)
    if fit.khat == 0:
        return fit.scale * exponential
    with np.errstate(over="ignore"):  # a hopeless tail may overflow: its weights are then cut at the largest raw one
        return fit.scale * np.expm1(fit.khat * exponential) / fit.khat
