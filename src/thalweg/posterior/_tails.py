"""Tails that draws have not seen, by what the log density is along lines through them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from thalweg.targets import Target, log_density_of_rows

_ROWS, _LINES = 32, 16
"""Draws that lines go through; coordinates that they go along, those of the longest tails, beside the way out."""
_FINEST, _FARTHEST, _PER_DECADE = -2.5, 3.0, 6
"""Decades of the points on a line, in robust sd from its draw."""
_OUTWARD = float(np.log10(7.0))
"""And of those on the way out: to e^7 times the draw's distance."""
_INSIDE = 0.998
"""The share of the draws within the bound beyond which mass is looked for."""
_MOST_MISSING, _MOST_TOGETHER, _SIGMAS = 0.003, 0.02, 2.5


class Tails(NamedTuple):
    """What tails hold beyond what the draws have there.

    Attributes:
        missing: a share of the mass, of all coordinates together, less its noise.
        told: a sentence where it is too much, else None.
    """

    missing: float
    told: str | None


def look_at_tails(target: Target, u: np.ndarray, ess: float, rng: np.random.Generator) -> Tails:
    r"""Whether tails hold plainly more of the mass than of the draws.

    The chance of $|x_j - c| > r$ is the mean over draws of their conditional chances
    $\int_{|y - c| > r} p(y, x_{-j})\, dy \,/ \int p(y, x_{-j})\, dy$, which one integral along a line through each draw
    gives, however rarely draws go out there, and however long chains stay. r holds 0.998 of the draws. What is beyond
    it in excess of 0.002 is missing; 0.003 in one coordinate, or 0.02 in all together, by 2.5 standard errors, is too
    much. Along up to 16 coordinates, and along the ray from the middle through the draw, for tails that are long in all
    coordinates together.

    Source: the conditional means are those of Gelfand and Smith 1990 ("Rao-Blackwellised").

    Args:
        target: p.
        u: draws that should be p's, (n, d).
        ess: their effective number, for the noise of r.
        rng: which draws are looked at.
    """
    rows = u[rng.choice(len(u), min(_ROWS, len(u)), replace=False)].astype(float)
    low, middle, high = np.quantile(u, [0.25, 0.5, 0.75], axis=0)
    scale = np.maximum((high - low) / 1.349, np.finfo(np.float32).tiny)
    bounds = np.quantile(np.abs(u - middle), _INSIDE, axis=0)
    noise = (1 - _INSIDE) / ess
    sides, where = [], np.argsort(-bounds / scale)[:_LINES]
    for j in where:
        offsets = scale[j] * _offsets(_FARTHEST)
        lines = np.repeat(rows[:, None], len(offsets), axis=1)
        lines[:, :, j] += offsets
        sides.append(_excess(_densities(target, lines), offsets, np.abs(lines[:, :, j] - middle[j]) > bounds[j]))
    offsets = _offsets(_OUTWARD)
    lines = middle + np.exp(offsets)[:, None] * (rows - middle)[:, None]
    distance, bound = (np.linalg.norm((x - middle) / scale, axis=-1) for x in (lines, u))
    # the volume grows as the d-th power of the distance, in its logarithm
    log_p = _densities(target, lines) + u.shape[1] * offsets
    out, out_error = _excess(log_p, offsets, distance > np.quantile(bound, _INSIDE))
    found, errors = np.array(sides).T
    together, error = float(found.sum()), float(np.sqrt((errors**2 + noise).sum()))
    missing = max(0.0, together - error)
    k = int(np.argmax(found))
    plainly = found[k] - _SIGMAS * np.sqrt(errors[k] ** 2 + noise) > _MOST_MISSING
    if plainly or together - _SIGMAS * error > _MOST_TOGETHER:
        name = next(n for n, part in target.space.slices.items() if part.start <= where[k] < part.stop)
        share = 1 - _INSIDE + found[k]
        return Tails(missing, f"`{name}` has {share:.1%} of its mass in tails where {1 - _INSIDE:.1%} of the draws are")
    if out - _SIGMAS * np.sqrt(out_error**2 + noise) > _MOST_MISSING:
        share = 1 - _INSIDE + out
        return Tails(
            missing, f"{share:.1%} of the mass is far from the middle where {1 - _INSIDE:.1%} of the draws are"
        )
    return Tails(missing, None)


def _offsets(farthest: float) -> np.ndarray:
    one_way = np.logspace(_FINEST, farthest, round(_PER_DECADE * (farthest - _FINEST)) + 1)
    return np.concatenate([-one_way[::-1], [0.0], one_way])


def _densities(target: Target, lines: np.ndarray) -> np.ndarray:
    """Log p at points on lines, (rows, points, d) to (rows, points); -inf where it is no number."""
    flat = lines.reshape(-1, lines.shape[-1]).astype(jnp.result_type(float))
    found = np.asarray(log_density_of_rows(target, flat), float).reshape(lines.shape[:2])
    return np.where(np.isfinite(found), found, -np.inf)


def _excess(log_p: np.ndarray, offsets: np.ndarray, beyond: np.ndarray) -> tuple[float, float]:
    """(the mean chance of `beyond` along the lines, by the trapezium rule, less that of the draws; its error)."""
    seen = np.isfinite(log_p).any(axis=1)
    if not seen.any():
        return 0.0, 0.0
    log_p, beyond = log_p[seen], beyond[seen]
    mass = np.exp(log_p - log_p.max(axis=1, keepdims=True)) * np.gradient(offsets)
    chance = (mass * beyond).sum(axis=1) / mass.sum(axis=1)
    return float(chance.mean()) - (1 - _INSIDE), float(chance.std() / np.sqrt(len(chance)))
