"""The ways between two places: straight, and the one that stays as high as it can."""

import numpy as np

from thalweg._core import in_precision
from thalweg.targets import Target, log_density_of_rows, value_and_score_of_rows

_POINTS, _ROUNDS, _FIRST = 64, 60, 0.3
_FASTER, _SLOWER, _LONGEST = 1.3, 0.5, 1.0


def lead_uphill(target: Target, places: np.ndarray, to: np.ndarray, most: float) -> np.ndarray:
    """Whether the straight ways from places, (k, d), `to` another, (d,), never fall by more than `most` nats; (k,).

    So it is everywhere around the mode of a log-concave density.
    """
    ways = places[:, None] + np.linspace(0, 1, _POINTS)[:, None] * (to - places[:, None])
    log_p = log_density_of_rows(target, ways.reshape(-1, target.size)).reshape(len(places), -1)
    with np.errstate(invalid="ignore"):
        # of what is not finite on the way nothing is known
        return (np.maximum.accumulate(log_p, axis=1) - log_p).max(axis=1) <= most


def is_joined(target: Target, places: np.ndarray, spread: np.ndarray, most: float) -> bool:
    """Whether a way from one place to the other never falls by more than `most` nats below the lower end.

    A straight way at first, then a string: its points go uphill, but not along it, and are spread evenly again. What
    lies at the two ends of a bend is one place, which the straight way leaves.

    Source: E, Ren and Vanden-Eijnden 2007 (the simplified string method), here with steps that adapt to their success.

    Args:
        target: the log density.
        places: the two of them, (2, d).
        spread: the Cholesky factor of a covariance, the units of the steps, (d, d).
        most: nats.
    """
    ends = np.linalg.solve(spread, places.T).T
    x = ends[0] + np.linspace(0, 1, _POINTS)[:, None] * (ends[1] - ends[0])
    step = np.full(_POINTS, _FIRST)

    def look(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_p, slope = value_and_score_of_rows(target, in_precision(x @ spread.T))
        good = np.isfinite(log_p) & np.isfinite(slope).all(axis=1)
        return np.where(good, log_p, -np.inf), np.where(good[:, None], slope, 0).astype(float) @ spread

    for _ in range(_ROUNDS):
        log_p, slope = look(x)
        if log_p.min() >= min(log_p[0], log_p[-1]) - most:
            return True
        along = np.gradient(x, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        across = slope - (slope * along).sum(1, keepdims=True) * along
        across[[0, -1]] = 0
        length = np.linalg.norm(across, axis=1)
        # of a steep slope the direction alone
        new = x + (step / np.maximum(length, 1.0))[:, None] * across
        higher = look(new)[0] > log_p
        step = np.where(higher, np.minimum(step * _FASTER, _LONGEST), step * _SLOWER)
        x = _evenly(np.where(higher[:, None], new, x))
    return False


def _evenly(x: np.ndarray) -> np.ndarray:
    """The same way by points at even distances."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(x, axis=0), axis=1))])
    at = np.linspace(0, length[-1], len(x))
    return np.stack([np.interp(at, length, column) for column in x.T], axis=1)
