"""Points uphill from many places: where else a Gaussian might begin."""

import jax.numpy as jnp
import numpy as np

from thalweg.ladder._modes import APART, Mode
from thalweg.targets import Target, value_and_score_of_rows

_SCOUTS, _STEPS, _WIDER, _MOST = 64, 60, 5.0, 3
_FASTER, _SLOWER, _FIRST, _LONGEST = 1.3, 0.5, 0.1, 100.0


def elsewhere(target: Target, points: np.ndarray, mode: Mode) -> np.ndarray:
    """Places uphill of `points` that a Gaussian does not reach: far from it and from each other, highest first.

    Args:
        target: the log density.
        points: where the scouts begin, (k, d); every other one five times as far from 0.
        mode: the Gaussian.

    Returns:
        (m, d), m <= 3.
    """
    points = np.array(points[:_SCOUTS], float)
    points[1::2] *= _WIDER
    ends, log_p = _uphill(target, points)
    whitened = np.linalg.solve(mode.scale_tril, (ends - mode.loc).T).T
    found: list[int] = []
    for k in np.argsort(-log_p):
        others = whitened[found] if found else np.empty((0, target.size))
        distances = np.linalg.norm(np.vstack([whitened[k], whitened[k] - others]), axis=1)
        if np.isfinite(log_p[k]) and len(found) < _MOST and distances.min() > APART:
            found.append(int(k))
    return ends[found]


def _uphill(target: Target, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Go uphill from many points at once, each coordinate with a step of its own that its slope's sign adapts.

    Steps depend on signs alone, so that neither scales nor slopes matter; a step that is not uphill is taken back. All
    that is compiled is what the Gaussian's fit compiles. Source: Riedmiller and Braun 1993 (Rprop).

    Returns:
        (where they ended, (k, d); the log density there, (k,)).
    """

    def look(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_p, slope = value_and_score_of_rows(target, u.astype(jnp.result_type(float)))
        good = np.isfinite(log_p) & np.isfinite(slope).all(axis=1)
        return np.where(good, log_p, -np.inf), np.where(good[:, None], slope, 0).astype(float)

    u, step = points, np.full(points.shape, _FIRST)
    log_p, slope = look(u)
    for _ in range(_STEPS):
        new = u + step * np.sign(slope)
        new_log_p, new_slope = look(new)
        taken = (new_log_p > log_p)[:, None]
        turned = slope * new_slope < 0
        step = np.where(taken & ~turned, np.minimum(step * _FASTER, _LONGEST), step * _SLOWER)
        u, slope, log_p = np.where(taken, new, u), np.where(taken, new_slope, slope), np.maximum(log_p, new_log_p)
    return u, log_p
