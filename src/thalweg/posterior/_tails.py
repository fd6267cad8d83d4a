"""Tails that draws have not seen, by what the log density is along lines through them."""

from typing import NamedTuple

import numpy as np

from thalweg._core import in_precision
from thalweg.targets import Target, is_artefact, is_rounding, log_density_of_rows

_ROWS, _LINES, _PER_DECADE = 32, 16, 6
"""Draws that lines go through; coordinates that they go along, those of the longest tails, beside the way out; points
of a line in a decade."""
_BETWEEN = 8
"""So many points more among the draws, for each of those in a decade."""
_BRIEF_ROWS, _BRIEF_PER_DECADE = 8, 3
"""Of a first look, which only says whether there is something to be looked at."""
_FINEST, _FARTHEST = -2.5, 3.0
"""Decades of the points on a line, in robust sd from its draw."""
_OUTWARD = float(np.log10(7.0))
"""And of those on the way out: to e^7 times the draw's distance."""
_SUSPECT = 10.0
"""Nats above the draw in a line's middle, from which the log density may be but rounding; and below it, down to which
the mass of a tail counts."""
_INSIDE = 0.998
"""The share of the draws within the bound beyond which mass is looked for."""
_MOST_MISSING, _MOST_TOGETHER, _SIGMAS = 0.003, 0.02, 2.5
_MOST_DRAWS = 8.0
"""So many draws should lie beyond all that there are: by chance that happens once in e^8 times."""


class Tails(NamedTuple):
    """What tails hold beyond what the draws have there.

    Attributes:
        missing: a share of the mass, of all coordinates together, less its noise.
        told: a sentence where it is too much, else None.
    """

    missing: float
    told: str | None


def look_at_tails(
    target: Target,
    u: np.ndarray,
    ess: float,
    rng: np.random.Generator,
    *,
    chosen_from: np.ndarray | None = None,
    briefly: bool = False,
) -> Tails:
    r"""Whether tails hold plainly more of the mass than of the draws.

    The chance of $|x_j - c| > r$ is the mean over draws of their conditional chances
    $\int_{|y - c| > r} p(y, x_{-j})\, dy \,/ \int p(y, x_{-j})\, dy$, which one integral along a line through each draw
    gives, however rarely draws go out there, and however long chains stay. r holds 0.998 of the draws. What is beyond
    it in excess of 0.002 is missing; 0.003 in one coordinate, or 0.02 in all together, by 2.5 standard errors, is too
    much; and so is what 8 draws should lie in, beyond all of them. Along up to 16 coordinates, and along the ray from
    the middle through the draw, for tails that are long in all coordinates together.

    Source: the conditional means are those of Gelfand and Smith 1990 ("Rao-Blackwellised").

    Args:
        target: p.
        u: draws that should be p's, (n, d).
        ess: their effective number, for the noise of r.
        rng: which draws are looked at.
        chosen_from: the weighted draws that u was chosen from, (m, d): what they reach is not beyond all, though of a
            few that lie far out chance may have chosen none.
        briefly: look along few lines first, and at more only where those say that something may be missing.
    """
    reach = u if chosen_from is None else chosen_from
    if briefly and not _look(target, u, reach, ess, rng, _BRIEF_ROWS, _BRIEF_PER_DECADE).may_lack(ess):
        return Tails(0.0, None)
    look = _look(target, u, reach, ess, rng, _ROWS, _PER_DECADE)
    together, error = look.together
    return Tails(max(0.0, together - error), look.told(target, ess))


class _Look(NamedTuple):
    """Chances beyond what draws reach.

    Attributes:
        where: numbers of the coordinates.
        excess: the chance beyond r less the draws' share there, a coordinate each.
        errors: of these, with the noise of r.
        beyond: the chance beyond all of the draws, and its standard error, a coordinate each.
        out: the excess on the way out, and its error.
    """

    where: np.ndarray
    excess: np.ndarray
    errors: np.ndarray
    beyond: tuple[np.ndarray, np.ndarray]
    out: tuple[float, float]

    @property
    def together(self) -> tuple[float, float]:
        """The excess of all coordinates, and its error."""
        return float(self.excess.sum()), float(np.sqrt((self.errors**2).sum()))

    def may_lack(self, ess: float) -> bool:
        """Whether more than noise may be missing."""
        most = max(np.max(self.excess - self.errors), self.out[0] - self.out[1])
        return bool(most > 0 or np.max(self.beyond[0]) * ess > _MOST_DRAWS / 2)

    def told(self, target: Target, ess: float) -> str | None:
        """A sentence where too much is."""
        k = int(np.argmax(self.excess))
        plainly = self.excess[k] - _SIGMAS * self.errors[k] > _MOST_MISSING
        together, error = self.together
        if plainly or together - _SIGMAS * error > _MOST_TOGETHER:
            share = 1 - _INSIDE + self.excess[k]
            name = _name(target, int(self.where[k]))
            return f"`{name}` has {share:.1%} of its mass in tails where {1 - _INSIDE:.1%} of the draws are"
        if self.out[0] - _SIGMAS * self.out[1] > _MOST_MISSING:
            share = 1 - _INSIDE + self.out[0]
            return f"{share:.1%} of the mass is far from the middle where {1 - _INSIDE:.1%} of the draws are"
        chance, error = self.beyond
        k = int(np.argmax(chance - _SIGMAS * error))
        if (chance[k] - _SIGMAS * error[k]) * ess > _MOST_DRAWS:
            name = _name(target, int(self.where[k]))
            return f"`{name}` has {chance[k]:.2%} of its mass in tails beyond all of the draws"
        return None


def _name(target: Target, coordinate: int) -> str:
    return next(n for n, part in target.space.slices.items() if part.start <= coordinate < part.stop)


def _look(
    target: Target,
    u: np.ndarray,
    reach: np.ndarray,
    ess: float,
    rng: np.random.Generator,
    n_rows: int,
    per_decade: int,
) -> _Look:
    rows = u[rng.choice(len(u), min(n_rows, len(u)), replace=False)].astype(float)
    low, middle, high = np.quantile(u, [0.25, 0.5, 0.75], axis=0)
    scale = np.maximum((high - low) / 1.349, np.finfo(np.float32).tiny)
    away = np.abs(u - middle)
    bounds, ends = np.quantile(away, _INSIDE, axis=0), np.abs(reach - middle).max(axis=0)
    noise = (1 - _INSIDE) / ess
    own = np.asarray(log_density_of_rows(target, in_precision(rows)), float)
    found, where = [], np.argsort(-bounds / scale)[:_LINES]
    levels = (np.arange(_BETWEEN * per_decade) + 0.5) / (_BETWEEN * per_decade)
    for j in where:
        # and where the draws are: a line from one mode would step over another
        among = np.broadcast_to(np.quantile(u[:, j], levels), (len(rows), len(levels)))
        offsets = np.sort(np.hstack([rows[:, [j]] + scale[j] * _offsets(_FARTHEST, per_decade), among]), axis=1)
        lines = np.repeat(rows[:, None], offsets.shape[1], axis=1)
        lines[:, :, j] = offsets
        distance = np.abs(lines[:, :, j] - middle[j])
        log_p = _densities(target, lines, rows, own, distance > bounds[j])
        found.append([*_chance(log_p, offsets, distance > bounds[j]), *_chance(log_p, offsets, distance > ends[j])])
    chance, errors, beyond, beyond_error = np.array(found).T
    offsets = _offsets(_OUTWARD, per_decade)
    lines = middle + np.exp(offsets)[:, None] * (rows - middle)[:, None]
    distance, bound = (np.linalg.norm((x - middle) / scale, axis=-1) for x in (lines, u))
    is_out = distance > np.quantile(bound, _INSIDE)
    # the volume grows as the d-th power of the distance, in its logarithm
    log_p = _densities(target, lines, rows, own, is_out) + u.shape[1] * offsets
    out, out_error = _chance(log_p, np.broadcast_to(offsets, log_p.shape), is_out)
    return _Look(
        where,
        chance - (1 - _INSIDE),
        np.sqrt(errors**2 + noise),
        (beyond, beyond_error),
        (out - (1 - _INSIDE), float(np.sqrt(out_error**2 + noise))),
    )


def _offsets(farthest: float, per_decade: int) -> np.ndarray:
    one_way = np.logspace(_FINEST, farthest, round(per_decade * (farthest - _FINEST)) + 1)
    return np.concatenate([-one_way[::-1], [0.0], one_way])


def _densities(target: Target, lines: np.ndarray, draws: np.ndarray, own: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Log p at points on lines, (rows, points, d) to (rows, points); -inf where it is no number, or an artefact.

    That is looked at where it is far above what it is, `own`, at the draws that the lines go through; and `beyond`
    most draws, where it would count. Further out on a line than an artefact nothing is known: where counts are lost
    beside a concentration, say, the log density is smooth again, and too high.
    """
    lines = in_precision(lines)
    found = np.asarray(log_density_of_rows(target, lines.reshape(-1, lines.shape[-1])), float).reshape(lines.shape[:2])
    found = np.where(np.isfinite(found), found, -np.inf)
    counts = beyond & (found > own[:, None] - _SUSPECT)
    if (high := counts | (found > own[:, None] + _SUSPECT)).any():
        false = np.zeros_like(high)
        false[high] = is_rounding(target, lines[high])
        away = np.linalg.norm(lines.astype(float) - draws[:, None], axis=-1)
        found[_outwards(false, away)] = -np.inf
        false = _artefacts(target, lines.astype(float), away, found > own[:, None] + _SUSPECT)
        found[_outwards(false, away)] = -np.inf
    return found


def _outwards(marked: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Marked points of lines, and all that are further out on their side of the draw, which is where `away` is 0."""
    draw, number = away.argmin(axis=1)[:, None], np.arange(marked.shape[1])
    right = np.maximum.accumulate(marked & (number >= draw), axis=1)
    left = np.maximum.accumulate((marked & (number <= draw))[:, ::-1], axis=1)[:, ::-1]
    return right | left


def _artefacts(target: Target, lines: np.ndarray, away: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which points are of high stretches that rounding makes, as one sees at their ends towards the draws."""
    # the stretches by row, first point and last
    padded = np.pad(high, ((0, 0), (1, 1)))
    (rows, first), (_, after) = np.nonzero(padded[:, 1:] & ~padded[:, :-1]), np.nonzero(padded[:, :-1] & ~padded[:, 1:])
    last = after - 1
    # the neighbour that is nearer to the draw, which is in no stretch itself
    away = np.pad(away, ((0, 0), (1, 1)), constant_values=np.inf)
    on_the_left = away[rows, first] < away[rows, last + 2]
    before, inner = np.where(on_the_left, first - 1, last + 1), np.where(on_the_left, first, last)
    false = is_artefact(target, lines[rows, before], lines[rows, inner])
    out = np.zeros_like(high)
    for row, a, b in zip(rows[false], first[false], last[false], strict=True):
        out[row, a : b + 1] = True
    return out


def _chance(log_p: np.ndarray, offsets: np.ndarray, beyond: np.ndarray) -> tuple[float, float]:
    """(the mean chance of `beyond` along the lines, by the trapezium rule; its error); lines of no density left out.

    Args:
        log_p: (lines, points).
        offsets: where the points are, (lines, points).
        beyond: (lines, points).
    """
    seen = np.isfinite(log_p).any(axis=1)
    if not seen.any():
        return 0.0, 0.0
    log_p, beyond = log_p[seen], beyond[seen]
    mass = np.exp(log_p - log_p.max(axis=1, keepdims=True)) * np.gradient(offsets, axis=1)[seen]
    chance = (mass * beyond).sum(axis=1) / mass.sum(axis=1)
    return float(chance.mean()), float(chance.std() / np.sqrt(len(chance)))
