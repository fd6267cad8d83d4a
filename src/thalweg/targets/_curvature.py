"""The curvature of a log density of many coordinates, where each meets but a few of the others."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, count, in_pieces, over_batch, rows_jit
from thalweg.targets._target import Target

_PIECE = 128
"""Products a call."""
_MOST = 32
"""Products a Hessian, beyond which it is not worth them."""
_PROBED, _NEAR, _EXACT = 32, 1e-2, 1e-3
"""Coordinates by which it is seen first whether most meet few; how far from one point a second look is; the relative
error of a product up to which what was seen holds elsewhere."""


class Sparsity(NamedTuple):
    """Where a Hessian is not zero, and the few vectors that it must be multiplied by to be known.

    Attributes:
        directions: those vectors, (k, d): one unit vector for each coordinate that meets many, and sums of unit
            vectors whose columns have no entry in the same row.
        many: the coordinates that meet many.
        row: of each entry on the diagonal or below it, (m,).
        column: of it.
        where: in which two of all k d numbers of the products it is, itself and its mirror image, (2, m).
    """

    directions: np.ndarray
    many: np.ndarray
    row: np.ndarray
    column: np.ndarray
    where: np.ndarray

    def entries(self, products: np.ndarray) -> np.ndarray:
        """Of the Hessian, (m,), of which these are the products with `directions`, (k, d)."""
        return products.ravel()[self.where].mean(0)

    def diagonal(self, values: np.ndarray) -> np.ndarray:
        """The entries, (m,), of a matrix that has these, (d,), on its diagonal and no others."""
        return np.where(self.row == self.column, values[self.row], 0.0)

    def matrix(self, entries: np.ndarray) -> Any:
        """The symmetric matrix of these entries, in SciPy's compressed columns, (d, d)."""
        from scipy.sparse import csc_array

        below = self.row != self.column
        row, column = (np.append(a, b[below]) for a, b in ((self.row, self.column), (self.column, self.row)))
        return csc_array((np.append(entries, entries[below]), (row, column)), shape=(self.directions.shape[1],) * 2)


def _product_rows(target: Target, rows: tuple[Array, Array]) -> Array:
    def product(u: Array, v: Array) -> Array:
        return jax.jvp(jax.grad(target.log_density), (u,), (v,))[1]

    point = (target.size,)
    return over_batch(product, {"u": (rows[0], point), "v": (rows[1], point)})


_product_piece = rows_jit(_product_rows)


def _products(target: Target, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Hessians of the log density at rows u, times rows v, (n, d)."""
    count(gradients=2 * len(u))
    dtype = jnp.result_type(float)
    return in_pieces(_product_piece(target), (u.astype(dtype), v.astype(dtype)), _PIECE).astype(float)


def mean_hessian(target: Target, sparsity: Sparsity, u: np.ndarray) -> np.ndarray:
    """Entries, (m,), of the mean over rows u of the log density's Hessian; inf or NaN where one is."""
    n, k = len(u), len(sparsity.directions)
    products = _products(target, np.repeat(u, k, axis=0), np.tile(sparsity.directions, (n, 1)))
    # of products that are infinite there is no mean, and who asked finds none
    with np.errstate(invalid="ignore"):
        return sparsity.entries(products.reshape(n, k, -1).mean(0))


def sparsity_of(target: Target, point: np.ndarray, rng: np.random.Generator) -> Sparsity | None:
    """Where the Hessian is not zero; None where 32 products do not tell it, or it cannot be had.

    Coordinates that meet many, as the parameters of a hierarchy or of a series do, have products of their own; of all
    others those share one that meet no coordinate in common. Source: Curtis, Powell and Reid 1974.

    Args:
        target: the log density.
        point: where it is looked at, (d,).
        rng: of how it is looked at.
    """
    if target.takes_turns or not _has_hessian(target):
        return None
    some = rng.choice(target.size, min(_PROBED, target.size), replace=False)
    if np.median(_entries(target, point, some).sum(1)) > 2 * _MOST:
        return None
    nearby = point + _NEAR * rng.standard_normal(target.size)
    every = np.arange(target.size)
    entries = _entries(target, point, every) | _entries(target, nearby, every)
    found = _coloured(entries | entries.T)
    return found if found is not None and _holds(target, found, nearby, rng) else None


def _has_hessian(target: Target) -> bool:
    """Whether JAX can trace one."""
    rows = jax.ShapeDtypeStruct((_PIECE, target.size), jnp.result_type(float))
    try:
        jax.eval_shape(lambda *rows: _product_rows(target, rows), rows, rows)
    except Exception:
        # a function from elsewhere, or one that says itself what its gradient is, may have no second derivatives
        return False
    return True


def _entries(target: Target, point: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where these columns of the Hessian at a point are not zero, one a row."""
    found = np.zeros((len(columns), target.size), bool)
    for first in range(0, len(columns), _PIECE):
        some = columns[first : first + _PIECE]
        unit = np.zeros((len(some), target.size))
        unit[np.arange(len(some)), some] = 1
        found[first : first + _PIECE] = _products(target, np.tile(point, (len(some), 1)), unit) != 0
    return found


def _coloured(entries: np.ndarray) -> Sparsity | None:
    """Products enough for a symmetric pattern, (d, d); None where that takes too many."""
    d = len(entries)
    entries = entries | np.eye(d, dtype=bool)
    met = entries.sum(0)
    many = np.flatnonzero(met > 2 * _MOST)
    others = np.flatnonzero(met <= 2 * _MOST)
    if len(many) >= _MOST or not len(others):
        return None
    inner = entries[np.ix_(others, others)]
    colour = np.full(len(others), -1)
    for i, met_by in enumerate(inner):
        taken = set(colour[inner[met_by].any(axis=0)].tolist())
        colour[i] = next(c for c in range(len(others) + 1) if c not in taken)
    n = len(many) + int(colour.max()) + 1
    if n > _MOST:
        return None
    directions = np.zeros((n, d))
    directions[np.arange(len(many)), many] = 1
    directions[len(many) + colour, others] = 1
    # the product that holds a column, and where in it
    product = np.empty(d, int)
    product[many], product[others] = np.arange(len(many)), len(many) + colour
    row, column = np.tril(entries).nonzero()
    met_many = np.isin([row, column], many)
    at = [
        np.where(met_many[1] | ~met_many[0], product[column] * d + row, product[row] * d + column),
        np.where(met_many[0] | ~met_many[1], product[row] * d + column, product[column] * d + row),
    ]
    return Sparsity(directions, many, row, column, np.stack(at))


def _holds(target: Target, found: Sparsity, point: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether what it makes of products is the Hessian elsewhere too."""
    there = point + rng.standard_normal(target.size)
    v = rng.standard_normal(target.size)
    exact = _products(target, there[None], v[None])[0]
    own = found.matrix(mean_hessian(target, found, there[None])) @ v
    return bool(np.linalg.norm(own - exact) <= _EXACT * np.linalg.norm(exact))
