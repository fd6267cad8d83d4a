"""Tails that fall as a power of the distance, and a distribution whose tails fall likewise."""

import math
from typing import NamedTuple

import numpy as np

from thalweg._core import in_precision
from thalweg.distributions import StudentT, TrainableStudentT
from thalweg.ladder._modes import Mode
from thalweg.targets import Target, log_density_of_rows

_NEAR, _FAR = 1e2, 1e3
"""In sd: where a power shows, and where a normal likelihood has long won."""
_MOST_POINTS, _MOST_ROWS = 4096, 32
_LARGEST, _LEAST = 10.0, 0.55
"""Degrees of freedom beyond which a tail is no heavier than a flow's own; and the fewest that a base has."""
_LIGHT = 30.0
_ALIKE = 0.2


class Powers(NamedTuple):
    r"""How fast a density falls: it is like $r^{-a}$ at a distance r.

    Attributes:
        along: a along each coordinate, the smaller of both ways, (d,); inf where it falls faster than a power.
        out: a on the way out from the middle, in all coordinates together.
    """

    along: np.ndarray
    out: float

    @classmethod
    def of(cls, target: Target, gaussian: Mode, rng: np.random.Generator) -> "Powers":
        """By the log density at 100 and at 1,000 sd of the Gaussian, from some of its draws."""
        d, sd = target.size, np.sqrt((gaussian.scale_tril**2).sum(1))
        n = int(np.clip(_MOST_POINTS // (4 * d + 2), 4, _MOST_ROWS))
        away = rng.standard_normal((n, d)) @ gaussian.scale_tril.T
        ways = np.concatenate([np.diag(sd), -np.diag(sd)])[:, None]

        def log_p(r: float) -> np.ndarray:
            # along a way the other coordinates stay
            x = gaussian.loc + np.concatenate([r * ways + away * (ways == 0), r * away[None]])
            found = log_density_of_rows(target, in_precision(x.reshape(-1, d)))
            return np.asarray(found, float).reshape(x.shape[:-1])

        near, far = log_p(_NEAR), log_p(_FAR)
        known = np.isfinite(near) & np.isfinite(far)
        fall = np.where(known, near, np.inf) - np.where(known, far, 0.0)
        power = np.median(fall, axis=1) / np.log(_FAR / _NEAR)
        return cls(power[:-1].reshape(2, d).min(0), float(power[-1]))

    def degrees(self) -> np.ndarray | None:
        r"""Degrees of freedom of Student-t's whose tails fall likewise; None where none is heavy, or one no density's.

        The d-dimensional one, of one number, falls as $r^{-(\nu + d)}$ along a coordinate as on the way out;
        independent ones, of d numbers, as $r^{-(\nu_j + 1)}$, and on the way out as all of these together.
        """
        d = len(self.along)
        together = d > 1 and math.isclose(self.out, self.along.max(), rel_tol=_ALIKE)
        nu = np.asarray(self.out - d) if together else np.minimum(self.along - 1, _LIGHT)
        return np.asarray(np.maximum(nu, _LEAST)) if 0 < nu.min() <= _LARGEST else None


def base_of(degrees: np.ndarray, size: int) -> StudentT | TrainableStudentT:
    """That Student-t, or those, on R^size."""
    return TrainableStudentT((size,), degrees) if degrees.ndim else StudentT((size,), float(degrees))
