"""Coordinates that govern how the others spread: the scale of groups, or of a process's noise."""

from typing import NamedTuple

import numpy as np

from thalweg._core import in_precision
from thalweg.ladder._modes import Mode
from thalweg.run import Limit
from thalweg.targets import Target, value_and_score_of_rows

_PROBES, _STEP = 2, 0.01
"""Ways along which the curvature is looked at; in sd of the Gaussian."""
_WORTH, _MOST = 0.1, 8
"""Nats that a coordinate's hold over the others costs a Gaussian; the most that govern."""


class Governors(NamedTuple):
    r"""A Gaussian's coordinates in which a few govern the rest.

    Attributes:
        which: numbers of those that govern, k of them.
        matrix: M with $M M^\top$ the Gaussian's covariance, (d, d): from white coordinates, of which the first k decide
            those that govern, and the others are those along which the spread of the rest changes with them.
    """

    which: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, target: Target, gaussian: Mode, rng: np.random.Generator, limit: Limit) -> "Governors | None":
        r"""Where the curvature changes most along the way that a coordinate takes the others with it.

        Let $A_i$ be half the change of the curvature in the Gaussian's coordinates, $L^\top \nabla^2 \log p\, L$, from
        one sd below the mean to one sd above along coordinate i, the others at their means given it. A Gaussian that
        knows nothing of it loses about $\|A_i\|_F^2 / 4$ nats. One by one the worst is taken, and what it explains with
        it: of the next only what $A_i$ is among the rest counts. None where no coordinate costs a tenth of a nat, or
        the limit is reached first: they take 8 d gradients each.
        """
        d, tril, covariance = target.size, gaussian.scale_tril, gaussian.covariance
        ways = covariance / np.sqrt(np.diagonal(covariance))[:, None]
        which: list[int] = []
        own = np.zeros((d, 0))
        while len(which) < min(_MOST, d - 1):
            cost = np.zeros(d)
            for _ in range(_PROBES):
                probe = tril @ _without(own, rng.standard_normal(d))
                change = _changes(target, gaussian.loc, ways, np.broadcast_to(probe, (d, d))) @ tril
                cost += (_without(own, change) ** 2).sum(1) / (4 * _PROBES)
                if limit.is_over:
                    return None
            cost = np.where(np.isfinite(cost), cost, 0.0)
            cost[which] = 0.0
            if not cost.max() > _WORTH:
                break
            which.append(int(cost.argmax()))
            # white coordinates that decide those
            own, _ = np.linalg.qr(tril[which].T)
        if not which:
            return None
        # of all that leave those alone, the axes of their changes together
        rest = np.linalg.qr(own, mode="complete")[0][:, len(which) :]
        together = np.zeros((d - len(which),) * 2)
        for way in own.T:
            change = _changes(target, gaussian.loc, np.broadcast_to(tril @ way, rest.T.shape), (tril @ rest).T)
            change = change @ tril @ rest
            together += rng.standard_normal() * (change + change.T) / 2
        if not np.isfinite(together).all():
            return None
        _, axes = np.linalg.eigh(together)
        return cls(np.array(which), tril @ np.concatenate([own, rest @ axes], axis=1))


def _without(own: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows less what they are of some orthonormal columns."""
    return rows - (rows @ own) @ own.T


def _changes(target: Target, at: np.ndarray, ways: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Half the change of the curvature along each probe from `at` less each way to `at` and it, all of them (n, d)."""

    def curvature(side: int) -> np.ndarray:
        there = at + side * ways
        up, down = (
            value_and_score_of_rows(target, in_precision(there + s * _STEP * probes))[1].astype(float) for s in (1, -1)
        )
        return (up - down) / (2 * _STEP)

    return (curvature(1) - curvature(-1)) / 2
