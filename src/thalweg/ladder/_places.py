"""Which modes are places of their own, by the draws between them."""

import numpy as np

from thalweg.ladder._modes import LEAST_MASS, Fitted

_SAME = 1.0
"""Sd, in the discriminant's units, within which two modes are one."""
_VALLEY, _GRID = 0.2, 64
"""The density between two places, as a share of the lower one's, below which they are apart; where it is looked at."""


def places(modes: Fitted, u: np.ndarray) -> np.ndarray:
    """The number of the place that each draw lies in, (n,): 0 is the one with the most; -1 for modes of less than 1 %.

    Every draw belongs to the mode of the highest density there. Two modes are one place where their draws, along
    Fisher's discriminant between them, have no valley; a ridge that several Gaussians follow is one place so.
    """
    own = np.argmax([e + g.log_prob(u) for g, e in zip(modes.gaussians, modes.elbo, strict=True)], axis=0)
    # of fewer draws, some of which may come many times, the density is not known
    known = [k for k in range(len(modes.elbo)) if (own == k).mean() >= LEAST_MASS]
    place = {k: k for k in known}
    for i, a in enumerate(known):
        for b in known[:i]:
            if place[a] != place[b] and not _are_apart(u[own == a], u[own == b]):
                kept, gone = place[b], place[a]
                place = {k: kept if p == gone else p for k, p in place.items()}
    of_draw = np.array([place.get(k, -1) for k in range(len(modes.elbo))])[own]
    by_size = sorted(set(place.values()), key=lambda p: -(of_draw == p).sum())
    number = {p: i for i, p in enumerate(by_size)}
    return np.array([number.get(p, -1) for p in of_draw])


def _are_apart(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the density of both together falls to a fifth of the lower one's between them."""
    way = b.mean(0) - a.mean(0)
    # a little of the variances on the diagonal: of few draws in many dimensions the covariance is singular
    within = np.atleast_2d(np.cov(a.T)) + np.atleast_2d(np.cov(b.T))
    within = within + 0.01 * np.diag(np.diagonal(within)) + np.finfo(float).tiny * np.eye(len(way))
    direction = np.linalg.solve(within, way)
    length = np.sqrt(way @ direction)
    if not length > _SAME:
        return False
    ta, tb = a @ direction / length, b @ direction / length
    width = min(ta.std(), tb.std()) * min(len(ta), len(tb)) ** -0.2
    if not width > 0:
        return True
    t, at = np.concatenate([ta, tb]), np.linspace(np.median(ta), np.median(tb), _GRID)
    density = np.exp(-0.5 * ((at[:, None] - t) / width) ** 2).mean(1)
    return bool(density.min() < _VALLEY * min(density[0], density[-1]))
