"""Points that a symmetry of the target would lead to from its modes: signs turned, labels exchanged."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from thalweg.ladder._modes import NATS, Fitted
from thalweg.ladder._scout import Scouts
from thalweg.targets import Target, log_density_of_rows

_MOST, _MOST_MODES = 1000, 16
"""Points looked at a round, and the modes that they are mirrored from."""
_FEW_SITES, _FEW_ON_AN_AXIS, _LONGEST_AXIS = 5, 3, 16
"""So many parameters are taken in all combinations, of more one, or all; so many labels are exchanged."""


class _Site(NamedTuple):
    """A parameter as numbers of R^d.

    Attributes:
        name: its own.
        shape: of the constrained array.
        where: the numbers.
    """

    name: str
    shape: tuple[int, ...]
    where: slice

    @property
    def is_plain(self) -> bool:
        """Whether there is a number for each entry of the array."""
        return self.where.stop - self.where.start == math.prod(self.shape)

    def along(self, length: int) -> np.ndarray:
        """The numbers at each place of the first axis of that length, (length, n)."""
        numbers = np.arange(self.where.start, self.where.stop).reshape(self.shape)
        return np.moveaxis(numbers, self.shape.index(length), 0).reshape(length, -1)


def mirrored(target: Target, modes: Fitted) -> Scouts:
    """Images of the modes' means that are about as high as these (5 nats).

    Where a likelihood sees only a product, all signs of both factors can be turned at once; where it sees a mixture,
    labels can be exchanged. From one mode nothing leads uphill to its images, and where the density has no bound, as of
    a scale of one observation, points sent uphill all end there instead. So signs are turned, of parameters in all
    combinations, and of what several have along an axis of one length; along such an axis places are exchanged.
    """
    sites = [_Site(name, target.space.shapes[name], where) for name, where in target.space.slices.items()]
    known = [mode.loc for mode in modes.gaussians[:_MOST_MODES]]
    each = max(1, _MOST // len(known))
    images, of_mode = [], []
    for k, loc in enumerate(known):
        some = list(itertools.islice(_images(target, sites, loc), each))
        images += some
        of_mode += [k] * len(some)
    good = [np.isfinite(image).all() for image in images]
    images, of_mode = (list(itertools.compress(each, good)) for each in (images, of_mode))
    if not images:
        return Scouts.of(np.empty((0, target.size)), np.empty(0))
    with np.errstate(over="ignore"):  # of a fit that ran off
        rows = np.concatenate([known, images]).astype(jnp.result_type(float))
    heights, log_p = np.split(log_density_of_rows(target, rows), [len(known)])
    return Scouts.of(np.stack(images), np.where(log_p >= heights[of_mode] - NATS, log_p, -np.inf))


def _images(target: Target, sites: list[_Site], loc: np.ndarray) -> Iterator[np.ndarray]:
    """Of one point, those of the fewest moves first."""
    for some in _combinations([s for s in sites if s.is_plain], _FEW_SITES):
        yield _turned(loc, [np.arange(s.where.start, s.where.stop) for s in some])
    for length in sorted({n for s in sites for n in s.shape if 2 <= n <= _LONGEST_AXIS}):
        along = [s for s in sites if length in s.shape]
        for some in _combinations(along, _FEW_ON_AN_AXIS):
            whole = [s.along(length) for s in some if s.is_plain]
            if len(whole) == len(some):
                yield from (_turned(loc, [w[i] for w in whole]) for i in range(length))
            for i, j in itertools.combinations(range(length), 2):
                image = loc.copy()
                for numbers in whole:
                    image[numbers[i]], image[numbers[j]] = loc[numbers[j]], loc[numbers[i]]
                folded = [s for s in some if not s.is_plain]
                if not folded:
                    yield image
                    continue
                yield _exchanged(target, folded, length, (i, j), image, axes=1)
                if any(s.shape.count(length) > 1 for s in folded):
                    yield _exchanged(target, folded, length, (i, j), image, axes=2)


def _combinations(sites: list[_Site], few: int) -> Iterator[tuple[_Site, ...]]:
    """All of them where they are few; else each alone, and all together. The largest first."""
    sizes = range(len(sites), 0, -1) if len(sites) <= few else (len(sites), 1)
    return itertools.chain.from_iterable(itertools.combinations(sites, n) for n in sizes)


def _turned(loc: np.ndarray, numbers: list[np.ndarray]) -> np.ndarray:
    """With their signs turned."""
    image = loc.copy()
    for some in numbers:
        image[some] *= -1
    return image


def _exchanged(
    target: Target, sites: list[_Site], length: int, pair: tuple[int, int], u: np.ndarray, *, axes: int
) -> np.ndarray:
    """With places exchanged of parameters whose numbers are not one for each: those of a simplex, say.

    Along the first axis of that length, or the first two, as labels are exchanged in a covariance and in a chain's
    transitions. Not finite where the values are then none of the parameter's.
    """
    params = dict(target.constrain(jnp.asarray(u, jnp.result_type(float)))[0])
    order = np.arange(length)
    order[list(pair)] = pair[::-1]
    for site in sites:
        values = np.asarray(params[site.name])
        for axis in np.flatnonzero(np.array(site.shape) == length)[:axes]:
            values = values.take(order, axis=axis)
        params[site.name] = jnp.asarray(values)
    return np.asarray(target.unconstrain(params), float)
