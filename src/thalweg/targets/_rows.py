"""A target at many points, from NumPy to NumPy, in pieces of one size: a target is compiled once, whatever asks."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, count, in_pieces, over_batch, precision, quick_rows_jit, requirement, rows_jit
from thalweg.targets._target import Target

_VALUES, _SCORES = 1000, 128
"""Rows a call."""
_NUMBERS_AT_ONCE = 10_000_000
"""Rows times numbers of data evaluated at once, to bound memory."""

_LAST_DIGIT, _MUCH_ROUNDING = 1e-14, 0.2
"""A relative change that should not matter; the share of rows where it does from which a place is but rounding."""

_ON_THE_WAY = 32
"""Points at which two precisions are compared."""
_UP, _UP_SHARE = 10.0, 1e-3
"""Nats that are not rounding as it is anywhere, and such a share of the log density itself."""


@runtime_checkable
class HasLogDensity(Protocol):
    """A log density on R^size, with the data that it sees at once."""

    @property
    def size(self) -> int: ...
    @property
    def data(self) -> Any: ...
    def log_density(self, u: Array, /) -> Any: ...


@rows_jit
def _value_piece(target: Target, u: Array) -> Array:
    return _blockwise(target, target.log_density, u)


def _value_and_score(target: HasLogDensity, u: Array) -> tuple[Array, Array]:
    return _blockwise(target, jax.value_and_grad(target.log_density), u)


_score_piece = rows_jit(_value_and_score)
_look_piece = quick_rows_jit(_value_and_score)
"""For a target, which fits ask thousands of times; for a density in a flow's coordinates, which is but looked at."""


def _at_once(target: HasLogDensity) -> int:
    """How many rows."""
    numbers = sum(x.size for x in jax.tree.leaves(target.data)) + target.size
    return max(1, _NUMBERS_AT_ONCE // numbers)


def _blockwise(target: HasLogDensity, function: Callable[[Array], Any], u: Array) -> Any:
    block = _at_once(target)
    if block >= len(u):
        return over_batch(function, {"u": (u, (target.size,))})
    # without a rest: XLA would run it beside the blocks, which factorisations do not bear (see _turns)
    block = next(b for b in range(block, 0, -1) if len(u) % b == 0)
    return jax.lax.map(function, u, batch_size=block)


class Stack:
    """Targets that differ in the numbers of their data, evaluated together: one call to the device for all of them.

    Rows of a stack are those of its first target, then as many of its second, and so on.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        """`targets` have data of one form, and are cut open at the same angles."""
        self._targets = tuple(targets)
        self._data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(t.data for t in targets))

    def __len__(self) -> int:
        """How many targets."""
        return len(self._targets)

    @property
    def size(self) -> int:
        """The dimension d of each."""
        return self._targets[0].size

    def value_and_score(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `value_and_score_of_rows`."""
        rows = u.reshape(len(self), -1, self.size).swapaxes(0, 1)
        value, score = in_pieces(_score_stack_piece(self._targets[0], self._data), rows, _SCORES)
        return value.T.ravel(), score.swapaxes(0, 1).reshape(u.shape)


@rows_jit
def _score_stack_piece(target: Target, data: Any, u: Array) -> tuple[Array, Array]:
    def of_one(data_and_rows: tuple[Any, Array]) -> tuple[Array, Array]:
        data, u = data_and_rows
        return _blockwise(target, jax.value_and_grad(lambda u: target.log_density(u, data)), u)

    fits = u.shape[0] * u.shape[1] <= _at_once(target)
    value, score = (jax.vmap(of_one) if fits else functools.partial(jax.lax.map, of_one))((data, u.swapaxes(0, 1)))
    return value.T, score.swapaxes(0, 1)


def log_density_of_rows(target: Target, u: np.ndarray) -> np.ndarray:
    """The log density at rows of R^d, (n, d) to (n,), in float64 wherever the target can.

    In float32 a sum over data rounds by an amount that is all but the same at every point: weights do not show it, and
    the evidence is off by it.
    """
    count(values=len(u))
    wide = target.in_double
    if wide is target:
        return in_pieces(_value_piece(target), u, _VALUES)
    with precision("float64"):
        return in_pieces(_value_piece(wide), u.astype(np.float64), _VALUES)


def is_rounding(target: Target, u: np.ndarray) -> np.ndarray:
    """Whether the log density at rows is but rounding: another last digit moves it by over a nat; (n, d) to (n,).

    So it is, say, where a density inverts a matrix that is all but singular; without bound, and a fit climbs there.
    """
    here, wide = log_density_of_rows(target, u), u.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # by chance it may be the same one way
        moved = [np.abs(here - log_density_of_rows(target, wide * (1 + way * _LAST_DIGIT))) for way in (1, -1)]
    return np.isfinite(here) & ~(np.maximum(*moved) <= 1)


def is_mostly_rounding(target: Target, u: np.ndarray) -> bool:
    """Whether the log density is but rounding at a place, by rows there."""
    return bool(is_rounding(target, u).mean() > _MUCH_ROUNDING)


def is_artefact(target: Target, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Whether a higher place is one of rounding alone: (d,) or (n, d), and (n, d), to (n,).

    So the negative binomial of NumPyro rises by 1,500 nats where its concentration is so large that counts are lost
    beside it, and is as smooth there as before. In float32 it does so much sooner: on the way from `here` to `there`
    float32 is up where float64 is not yet. A step of the density's own is at one place in both.
    """
    if not len(there):
        return np.zeros(0, bool)
    ways = here + np.linspace(0, 1, _ON_THE_WAY)[:, None, None] * (there - here)
    rows = ways.reshape(-1, target.size)
    exact = log_density_of_rows(target, rows).reshape(ways.shape[:2])
    try:
        with precision("float32"), np.errstate(over="ignore"):
            rough = in_pieces(_value_piece(target.in_default_precision()), rows.astype(np.float32), _VALUES)
    except Exception:
        # of a function that takes float64 alone nothing is known
        return np.zeros(len(there), bool)
    with np.errstate(invalid="ignore"):
        sooner = rough.reshape(exact.shape) - exact > _UP + _UP_SHARE * np.abs(exact)
        return (sooner & (exact < exact[-1] - _UP)).any(axis=0)


def value_and_score_of_rows(target: HasLogDensity | Stack, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log density and its gradient at rows of R^d, (n, d) to (n,) and (n, d)."""
    count(gradients=len(u))
    if isinstance(target, Stack):
        return target.value_and_score(u)
    piece = _score_piece if isinstance(target, Target) else _look_piece
    return in_pieces(piece(target), u, _SCORES)


def describe_target(target: Target) -> dict[str, Any]:
    """What tells a target from another: a digest of its data, and its log density at a few fixed points."""
    points = np.random.default_rng(0).uniform(-1, 1, (5, target.size))
    values = log_density_of_rows(target, points)
    described = {"data": target.digest, "log_density": [float(v) for v in values]}
    turns = {name: turn.tolist() for name, turn in target.space.turns.items()}
    if turns:
        described["turns"] = turns
    if target.space.noncentred:
        described["noncentred"] = True
    return described


def check_same_target(target: Target, described: dict[str, Any]) -> None:
    """Raise unless `target` is the one that `described` describes.

    Values may differ by the rounding of another machine or precision.

    Raises:
        ValueError: if the data or the log density differ.
    """
    remedy = "fit again, or give back what it was fitted to"
    if target.digest != described["data"]:
        raise ValueError(requirement("target", "have the data that the fit was made with", "other data", remedy))
    before, now = np.array(described["log_density"]), np.array(describe_target(target)["log_density"])
    if not np.allclose(before, now, rtol=1e-5, atol=0.02, equal_nan=True):
        first = int(np.argmax(~np.isclose(before, now, rtol=1e-5, atol=0.02, equal_nan=True)))
        got = f"{now[first]:.6g} where it was {before[first]:.6g}"
        raise ValueError(requirement("target", "have the log density that the fit was made with", got, remedy))
