"""Whether ranks are uniform, as those of a calibrated procedure are.

Source: Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based calibration"; the bands are
those of Saeilynoja, Buerkner and Vehtari 2022, "Graphical test for discrete uniformity and its applications".
"""

import functools
from typing import NamedTuple

import numpy as np

from thalweg._core import check_positive_int, requirement

_SIMULATIONS, _POINTS = 10_000, 100


class EcdfBand(NamedTuple):
    """Where the empirical distribution function of n uniform numbers stays, at all points at once.

    Attributes:
        at: the points in (0, 1), (k,).
        low: the least share of the numbers at or below each, (k,).
        high: the largest, (k,).
    """

    at: np.ndarray
    low: np.ndarray
    high: np.ndarray


def ecdf(pit: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The share of `pit`, (n,), at or below each point."""
    return np.searchsorted(np.sort(pit), at, side="right") / len(pit)


def ecdf_band(n: int, level: float = 0.95) -> EcdfBand:
    """The band that all of n uniform numbers' empirical distribution function stays in with chance `level`.

    Binomial intervals at up to 100 points, of the one width that makes it so (by simulation).

    Args:
        n: how many numbers.
        level: the chance, between 0 and 1.

    Raises:
        ValueError: if n is below 1, or the level not between 0 and 1.
    """
    n = check_positive_int("n", n)
    if not 0 < level < 1:
        raise ValueError(requirement("level", "lie between 0 and 1", level))
    from scipy.stats import binom  # 0.6 s, which `import thalweg` shall not cost

    at, smallest = _null(n)
    gamma = np.quantile(smallest, 1 - level)
    return EcdfBand(at, binom.ppf(gamma / 2, n, at) / n, binom.ppf(1 - gamma / 2, n, at) / n)


def uniformity(pit: np.ndarray) -> float:
    """The chance that n uniform numbers leave a band at least as wide as these do: a p-value, 1e-4 at least.

    Args:
        pit: numbers in [0, 1], (n,).

    Raises:
        ValueError: if one lies outside, or there is none.
    """
    pit = np.asarray(pit, float)
    if not len(pit) or not ((pit >= 0) & (pit <= 1)).all():
        raise ValueError(requirement("pit", "hold numbers in [0, 1]", f"{len(pit)} numbers"))
    at, smallest = _null(len(pit))
    own = _smallest_tail(np.round(ecdf(pit, at) * len(pit)).astype(int)[None], _tails(len(pit)))[0]
    return float((1 + np.sum(smallest <= own * (1 + 1e-9))) / (1 + len(smallest)))


def _grid(n: int) -> np.ndarray:
    k = min(n, _POINTS)
    return np.arange(1, k + 1) / (k + 1)


@functools.lru_cache(maxsize=8)
def _tails(n: int) -> np.ndarray:
    """[point, count] -> the two-sided chance of a count as far out, (k, n + 1)."""
    from scipy.stats import binom  # 0.6 s, which `import thalweg` shall not cost

    at, counts = _grid(n)[:, None], np.arange(n + 1)
    return 2 * np.minimum(binom.cdf(counts, n, at), binom.sf(counts - 1, n, at))


def _smallest_tail(counts: np.ndarray, tails: np.ndarray) -> np.ndarray:
    return tails[np.arange(len(tails)), counts].min(axis=1)


@functools.lru_cache(maxsize=8)
def _null(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(points, the smallest chance of any point's count in each of many sets of n uniform numbers)."""
    at, rng = _grid(n), np.random.default_rng(0)
    edges = np.concatenate([[0.0], at, [1.0]])
    inside = rng.multinomial(n, np.diff(edges), size=_SIMULATIONS)
    return at, _smallest_tail(np.cumsum(inside, axis=1)[:, :-1], _tails(n))
