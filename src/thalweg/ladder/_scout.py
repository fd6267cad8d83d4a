"""Points uphill from many places: where else a Gaussian might begin."""

from typing import NamedTuple

import numpy as np

from thalweg._core import in_precision
from thalweg.ladder._modes import APART, LEAST_MASS, LEFT_OUT, Fitted
from thalweg.targets import Stack, Target, log_density_of_rows, value_and_score_of_rows

_SCOUTS, _STEPS, _MOST_STEPS = 128, 60, 180
_LATELY, _UPHILL = 20, 1.0
"""Beyond the first steps there are more while the best of the last 20 is a nat above those before: what is far off."""
_SCALES = np.array([0.05, 0.5, 1.0, 5.0, 50.0])
"""Of the points that scouts begin at, in [-2, 2]^d: from 0.1 to 100."""
_FASTER, _SLOWER, _FIRST, _LONGEST = 1.3, 0.5, 0.1, 1e6
_SPREAD = 1.5
_OF_A_DRAW = 0.5
"""Of the distance at which draws of many coordinates lie, so near an end is not elsewhere."""


_LOOKED_AT, _CHOSEN, _TAILS, _WIDEST = 30_000, 128, 2.0, 1.5
"""Points all around a Gaussian; how many of them are sent uphill; degrees of freedom of one half of them, the power of
ten to which the other reaches. Of two normals in eight dimensions, the second with a fifth of the mass, half as wide,
8.5 sd away, 3 to 5 in 10,000 such points lie where its slope leads to it, and next to none in [-2, 2]^8 does."""
_AS_FAR, _AS_FAR_IN_SD = 50.0, 5.0
"""A coordinate goes so far, or so many sd: further out rounding leaves some log densities flat."""


class Scouts(NamedTuple):
    """Where scouts ended, highest first.

    Attributes:
        ends: (k, d).
        log_p: the log density there, (k,).
    """

    ends: np.ndarray
    log_p: np.ndarray

    @classmethod
    def of(cls, ends: np.ndarray, log_p: np.ndarray) -> "Scouts":
        """Put in order."""
        order = np.argsort(-log_p)
        return cls(ends[order], log_p[order])

    def left_out(self, modes: Fitted) -> np.ndarray:
        """Numbers of the ends that the modes do not reach.

        One Gaussian reaches what is near it; several what they are dense at, since a wide one may hide narrow ones.
        """
        if not modes.far:
            far = max(APART, _OF_A_DRAW * np.sqrt(self.ends.shape[1]))
            missed = np.linalg.norm(modes.gaussians[0].whiten(self.ends), axis=1) > far
        else:
            missed = self.log_p > modes.log_density(self.ends) + LEFT_OUT
        return np.flatnonzero(missed & np.isfinite(self.log_p))

    def elsewhere(self, modes: Fitted, most: int, tried: np.ndarray, least: float = -np.inf) -> np.ndarray:
        """Ends that the modes do not reach, apart from each other and from what was tried, highest first; (m, d).

        Args:
            modes: what is known.
            most: so many ends.
            tried: others that are known, (k, d).
            least: the log density that an end must have.
        """
        found: list[int] = []
        for k in self.left_out(modes):
            if self.log_p[k] < least:
                break
            others = np.concatenate([tried, self.ends[found]])
            # apart in the units of some mode: a wide one would see many as one
            between = np.stack(
                [np.linalg.norm(g.whiten(others - self.ends[k] + g.loc), axis=1) for g in modes.gaussians]
            )
            if len(found) < most and (between.max(axis=0) > APART).all():
                found.append(int(k))
        return self.ends[found]


def unseen(scouts: Scouts, modes: Fitted, small: Fitted, untried: np.ndarray, elbo: np.ndarray) -> str | None:
    """A sentence where places that were not tried, or held little each, may hold much of the mass together.

    Their number is guessed from how often two scouts ended in one of them (of D places that U scouts found,
    D^2 / 2 (U - D) in all), the mass of each from those of a few of them.

    Args:
        scouts: the last that were sent.
        modes: what was found.
        small: Gaussians of their own, but with too little mass each to be modes.
        untried: ends that no Gaussian was fitted from, (k, d).
        elbo: of Gaussians fitted from some of them now, -inf where they hold nothing of their own.
    """
    places = len(untried) + len(small.elbo)
    number = max(places, places**2 / (2 * max(len(scouts.left_out(modes)) - places, 1)))
    each = float(np.mean(np.exp(np.append(elbo, small.elbo) - modes.elbo.max())))
    mass = number * each / (number * each + float(np.exp(modes.elbo - modes.elbo.max()).sum()))
    if mass < LEAST_MASS:
        return None
    return (
        f"points that went uphill ended in places that are left out, of which there may be {number:,.0f} with "
        f"{mass:.0%} of the mass"
    )


def send_scouts(target: Target, points: np.ndarray, draws: np.ndarray | None = None) -> Scouts:
    """Uphill from `points`, (k, d), each thrown nearer to 0 or farther from it, and from `draws` as they are."""
    thrown = np.array(points, float) * np.resize(_SCALES, len(points))[:, None]
    return Scouts.of(*_uphill(target, thrown if draws is None else np.concatenate([thrown, draws])))


def suspects(target: Target, modes: Fitted, rng: np.random.Generator) -> np.ndarray:
    """Points all around the best Gaussian at which the target is denser than what is known makes it, (k, d).

    A narrow mode draws uphill only what is near it, and few points at random are. But there the log density exceeds a
    wide Gaussian's by far, and values by themselves are cheap. In heavy tails it does too: from there the way is back.
    """
    d, n = target.size, _LOOKED_AT // 2
    best = modes.gaussians[0]
    far = 2 * rng.standard_normal((n, d)) * np.sqrt(_TAILS / rng.chisquare(_TAILS, (n, 1)))
    box = rng.uniform(-1, 1, (n, d)) * 10 ** rng.uniform(0, _WIDEST, (n, 1))
    away = np.concatenate([far, box]) @ best.scale_tril.T
    reach = np.maximum(_AS_FAR, _AS_FAR_IN_SD * np.linalg.norm(best.scale_tril, axis=1))
    points = best.loc + away[(np.abs(away) < reach).all(axis=1)]
    with np.errstate(all="ignore"):  # far out a log density may overflow
        log_p = log_density_of_rows(target, in_precision(points)).astype(float)
        excess = log_p - modes.log_density(points)
    found = np.flatnonzero(np.isfinite(excess) & (excess > LEFT_OUT))
    highest = found[np.argsort(-log_p[found])][: _CHOSEN // 2]
    rest = rng.permutation(np.setdiff1d(found, highest))[: _CHOSEN - len(highest)]
    return points[np.concatenate([highest, rest])]


def send_scouts_each(stack: Stack, points: list[np.ndarray]) -> list[Scouts]:
    """As `send_scouts`, for each target of a stack, from points of its own."""
    d = stack.size
    begin = np.concatenate([np.resize(p, (_SCOUTS, d)) * np.resize(_SCALES, _SCOUTS)[:, None] for p in points])
    u, log_p = _uphill(stack, begin)
    return [Scouts.of(*each) for each in zip(u.reshape(-1, _SCOUTS, d), log_p.reshape(-1, _SCOUTS), strict=True)]


def send_scouts_between(target: Target, modes: Fitted, ends: np.ndarray, rng: np.random.Generator) -> Scouts:
    """Uphill from points spread as the modes are, and somewhat wider, and from what modes and ends have in common.

    Those are modes with one coordinate, or some, of another place, and modes moved by the way between two places: where
    coordinates have two values each, one by one or in turned directions, they lead to all of their combinations.

    Args:
        target: the log density.
        modes: what is known.
        ends: where earlier scouts ended, (k, d).
        rng: of all randomness.
    """
    d, n = target.size, _SCOUTS // 4
    locs = np.stack([g.loc for g in modes.gaussians])
    widths = np.stack([np.linalg.norm(g.scale_tril, axis=1) for g in modes.gaussians])
    middle, spread = locs.mean(0), locs.std(0) + widths.mean(0)
    places = np.concatenate([locs, ends])

    def some(of: np.ndarray) -> np.ndarray:
        return of[rng.integers(len(of), size=n)]

    share = np.where(rng.random((n, 1)) < 0.5, 1 / d, 0.5)
    taken = rng.random((n, d)) < share
    taken[np.arange(n), rng.integers(d, size=n)] = True
    mixed = np.where(taken, some(places), some(locs))
    moved = some(locs) + some(places) - some(places)
    around = middle + _SPREAD * spread * rng.standard_normal((_SCOUTS - 2 * n, d))
    return Scouts.of(*_uphill(target, np.concatenate([mixed, moved, around])))


def _uphill(target: Target | Stack, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Go uphill from many points at once, each coordinate with a step of its own that its slope's sign adapts.

    Steps depend on signs alone, so that neither scales nor slopes matter; a step that is not uphill is taken back. All
    that is compiled is what the Gaussian's fit compiles. Source: Riedmiller and Braun 1993 (Rprop).
    """

    def look(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_p, slope = value_and_score_of_rows(target, in_precision(u))
        good = np.isfinite(log_p) & np.isfinite(slope).all(axis=1)
        return np.where(good, log_p, -np.inf), np.where(good[:, None], slope, 0).astype(float)

    u, step = points, np.full(points.shape, _FIRST)
    log_p, slope = look(u)
    first, best = log_p, [log_p.max()]
    for i in range(_MOST_STEPS):
        if i >= _STEPS and best[-1] <= best[-_LATELY] + _UPHILL:
            break
        new = u + step * np.sign(slope)
        new_log_p, new_slope = look(new)
        taken = (new_log_p > log_p)[:, None]
        turned = slope * new_slope < 0
        step = np.where(taken & ~turned, np.minimum(step * _FASTER, _LONGEST), step * _SLOWER)
        u, slope, log_p = np.where(taken, new, u), np.where(taken, new_slope, slope), np.maximum(log_p, new_log_p)
        best.append(log_p.max())
    # where there is no slope every point would be an end
    return u, np.where(log_p > first, log_p, -np.inf)
