"""Points that a symmetry of the target would lead to from its modes: signs turned, labels exchanged."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from thalweg._core import in_precision
from thalweg.ladder._modes import NATS, Fitted
from thalweg.ladder._scout import Scouts
from thalweg.posterior import constrain, unconstrain
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


class _Image(NamedTuple):
    """A point, and what is still to be exchanged there among parameters that are no plain numbers, as a simplex.

    Attributes:
        u: the point of R^d, (d,).
        sites: those parameters.
        length: of the axis along which they are exchanged.
        order: the places along it.
        axes: along the first axis of that length, or the first two, as of a covariance and of a chain's transitions.
    """

    u: np.ndarray
    sites: tuple[_Site, ...] = ()
    length: int = 0
    order: tuple[int, ...] = ()
    axes: int = 0


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
    images = [list(itertools.islice(_images(sites, loc), each)) for loc in known]
    of_mode = np.repeat(np.arange(len(known)), [len(some) for some in images])
    points = _points(target, list(itertools.chain.from_iterable(images)))
    # what is none of a parameter's values has no point
    good = np.isfinite(points).all(axis=1)
    points, of_mode = points[good], of_mode[good]
    rows = in_precision(np.concatenate([known, points]))
    heights, log_p = np.split(log_density_of_rows(target, rows), [len(known)])
    return Scouts.of(points, np.where(log_p >= heights[of_mode] - NATS, log_p, -np.inf))


def _points(target: Target, images: list[_Image]) -> np.ndarray:
    """Where the images are, (n, d), with all exchanged."""
    points = np.array([image.u for image in images]).reshape(-1, target.size)
    left = [k for k, image in enumerate(images) if image.sites]
    if left:
        u = in_precision(points[left])
        params = {name: np.array(x) for name, x in constrain(target.space, target.data, u).items()}
        for row, image in enumerate(images[k] for k in left):
            for site in image.sites:
                for axis in np.flatnonzero(np.array(site.shape) == image.length)[: image.axes]:
                    params[site.name][row] = params[site.name][row].take(image.order, axis=axis)
        points[left] = unconstrain(target.space, target.data, params)[0]
    return points


def _images(sites: list[_Site], loc: np.ndarray) -> Iterator[_Image]:
    """Of one point, those of the fewest moves first."""
    for some in _combinations([s for s in sites if s.is_plain], _FEW_SITES):
        yield _turned(loc, [np.arange(s.where.start, s.where.stop) for s in some])
    for length in sorted({n for s in sites for n in s.shape if 2 <= n <= _LONGEST_AXIS}):
        along = [s for s in sites if length in s.shape]
        for some in _combinations(along, _FEW_ON_AN_AXIS):
            whole = [s.along(length) for s in some if s.is_plain]
            folded = tuple(s for s in some if not s.is_plain)
            if not folded:
                yield from (_turned(loc, [w[i] for w in whole]) for i in range(length))
            for i, j in itertools.combinations(range(length), 2):
                u, order = loc.copy(), np.arange(length)
                order[[i, j]] = j, i
                for numbers in whole:
                    u[numbers] = loc[numbers[order]]
                if not folded:
                    yield _Image(u)
                else:
                    square = any(s.shape.count(length) > 1 for s in folded)
                    yield from (_Image(u, folded, length, tuple(order.tolist()), axes) for axes in range(1, 2 + square))


def _combinations(sites: list[_Site], few: int) -> Iterator[tuple[_Site, ...]]:
    """All of them where they are few; else each alone, and all together. The largest first."""
    sizes = range(len(sites), 0, -1) if len(sites) <= few else (len(sites), 1)
    return itertools.chain.from_iterable(itertools.combinations(sites, n) for n in sizes)


def _turned(loc: np.ndarray, numbers: list[np.ndarray]) -> _Image:
    """With their signs turned."""
    u = loc.copy()
    for some in numbers:
        u[some] *= -1
    return _Image(u)
