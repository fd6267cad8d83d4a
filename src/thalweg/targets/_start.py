"""Where to begin: points of R^d at which the log density and its gradient are finite."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Seed, check_positive_int, from_numpy, numpy_rng, requirement
from thalweg.targets._check import raised
from thalweg.targets._data import leaves_with
from thalweg.targets._nan import first_nan
from thalweg.targets._rows import value_and_score_of_rows
from thalweg.targets._target import Target

_DRAWS_READ, _DRAWS_KEPT = 5000, 128
"""Of draws to begin at, that many are looked at; and each of so many is a place of its own to begin at."""


class Starts(NamedTuple):
    """Where to begin.

    Attributes:
        points: (k, d), k >= 1.
        scale_tril: Cholesky factor of the covariance of the draws that the first point is the mean of; None where it
            is not of draws.
        draws: some of them, (m, d); none where it is not.
    """

    points: np.ndarray
    scale_tril: np.ndarray | None
    draws: np.ndarray


def find_start(target: Target, seed: Seed, init: Mapping[str, Any] | None = None, n: int = 100) -> Starts:
    """Points with finite log density and gradient: `init` (or 0) first if it is one, then random ones in [-2, 2]^d.

    Args:
        target: the target.
        seed: an int or a JAX key.
        init: constrained values to begin at; parameters left out begin at the unconstrained 0. Or draws of all
            parameters, name -> (m, *shape), to begin at their mean and with their covariance. Deterministic quantities
            are passed over.
        n: how many points are tried.

    Returns:
        The good ones.

    Raises:
        ValueError: if none is good: which parameter is to blame, as far as can be told, and where; or if `init` has an
            unknown name, a wrong shape or a value outside its support.
    """
    n = check_positive_int("n", n)
    dtype = jnp.result_type(float)
    first, scale_tril, draws = np.zeros(target.size, dtype), None, np.empty((0, target.size), dtype)
    if init is not None:
        init = {n: x for n, x in init.items() if n not in _derived(target)}
        for name, value in init.items():
            _check_numbers(name, value)
    if init is not None and _are_draws(target, init):
        draws = _unconstrained(target, init)
        first, scale_tril = _moments(draws)
    elif init is not None:
        first = np.asarray(target.space.complete(init, target.data, "init"))
        target.space.check({**target.constrain(jnp.asarray(first))[0], **init}, target.data, "init")
    if not np.isfinite(first).all():
        got = target.space.describe(jnp.asarray(first), target.data)
        raise ValueError(requirement("init", "be inside the supports", got))
    others = numpy_rng(seed).uniform(-2, 2, (n - 1, target.size)).astype(dtype)
    points = np.concatenate([first[None], others])
    try:
        values, gradients = value_and_score_of_rows(target, points)
    except Exception as error:  # a callback into Python can raise whatever it likes
        raise ValueError(raised("log_density", error)) from error
    good = np.isfinite(values) & np.isfinite(gradients).all(axis=1)
    if not good.any():
        raise ValueError(_blame(target, points, values, gradients))
    few = np.linspace(0, len(draws) - 1, min(len(draws), _DRAWS_KEPT)).astype(int)
    return Starts(points[good], scale_tril if good[0] else None, draws[few])


def _derived(target: Target) -> set[str]:
    """Names of the deterministic quantities, which draws have beside the parameters."""
    deterministic = target.deterministic
    if deterministic is None:
        return set()
    u = jax.ShapeDtypeStruct((target.size,), jnp.result_type(float))
    return set(jax.eval_shape(lambda u: deterministic(target.constrain(u)[0], target.data), u))


def _check_numbers(name: str, value: Any) -> None:
    try:
        np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(requirement(f"init[{name!r}]", "be an array of numbers", repr(value)[:80])) from error


def _are_draws(target: Target, init: Mapping[str, Any]) -> bool:
    shapes = target.space.shapes
    known = [n for n in init if n in shapes]
    return bool(known) and all(np.ndim(init[n]) == len(shapes[n]) + 1 for n in known)


@eqx.filter_jit
def _unconstrain(target: Target, draws: Mapping[str, Array]) -> Array:
    return jax.vmap(target.unconstrain)(draws)


def _unconstrained(target: Target, draws: Mapping[str, Any]) -> np.ndarray:
    """Draws inside the supports as points of R^d, (m, d), evenly from among all."""
    arrays = {n: np.asarray(x, jnp.result_type(float)) for n, x in draws.items()}
    target.space.check(arrays, target.data, "init")
    count = len(arrays[target.names[0]])
    few = np.linspace(0, count - 1, min(count, _DRAWS_READ)).astype(int)
    u = np.asarray(_unconstrain(target, {n: from_numpy(arrays[n][few]) for n in target.names}))
    u = u[np.isfinite(u).all(axis=1)]
    if len(u) < 2:
        raise ValueError(requirement("init", "have at least 2 draws inside the supports", len(u)))
    return u


def _moments(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, Cholesky factor of the covariance) of draws in R^d.

    Shrunk as by five draws of variance 1e-3, so that few draws will do. Source: Stan reference manual, "HMC algorithm
    parameters".
    """
    u = draws.astype(float)
    m, d = u.shape
    covariance = (m * np.atleast_2d(np.cov(u.T)) + 5e-3 * np.eye(d)) / (m + 5)
    return u.mean(0).astype(draws.dtype), np.linalg.cholesky(covariance)


def _blame(target: Target, points: np.ndarray, values: np.ndarray, gradients: np.ndarray) -> str:
    """One sentence: what is wrong everywhere, through which parameter, and at which values."""
    first = target.space.describe(jnp.asarray(points[0]), target.data)
    place = f"at all {len(points)} starting points, the first of them {first}"
    finite = np.isfinite(values)
    if finite.any():
        row = int(np.argmax(finite))
        names = [n for n, s in target.space.slices.items() if not np.isfinite(gradients[row, s]).all()]
        got = f"a finite value but a gradient that is not, with respect to {_quote(names)}, {place}"
        return requirement(
            "log_density", "have a finite gradient", got, "look for sqrt, log or division at 0 behind jnp.where"
        )
    params, log_det = target.space.constrain(jnp.asarray(points[0]), target.data)
    lost = [n for n, x in params.items() if np.isnan(x).any()]
    if np.isnan(values).all():
        what, remedy = "NaN", "look for log or sqrt of a negative number, 0 / 0 or inf - inf"
        if np.isnan(log_det) and not lost:
            remedy = "a support is empty: its low is not below its high"
    elif np.isneginf(values).all():
        what, remedy = "-inf", "a support is wider than the density's, or `init` is needed"
        if lost or np.isneginf(log_det):
            of = f"the support of {_quote(lost)}" if lost else "a support"
            remedy = f"{of} is empty: its low is not below its high"
    else:
        kinds = {"NaN": np.isnan(values), "-inf": np.isneginf(values), "+inf": np.isposinf(values)}
        what, remedy = " or ".join(f"{k} ({v.sum()})" for k, v in kinds.items() if v.any()), "give an `init`"
    if found := leaves_with(lambda a: ~np.isfinite(a), target.data):
        remedy = f"there is NaN or inf in {', '.join(found)}"
    names, origin = _culprits(target, points), None
    if not names and np.isnan(values).any():
        params = target.space.constrain(jnp.asarray(points[np.argmax(np.isnan(values))]), target.data)[0]
        origin = first_nan(target.log_joint, params, target.data)
    if origin is not None:
        what, names = f"NaN (from {origin[0]})" if what == "NaN" else what, origin[1]
    through = f"because of {_quote(names)}" if names else f"whichever of {_quote(list(target.names))} is moved"
    return requirement("log_density", "be finite somewhere", f"{what} {place}, {through}", remedy)


def _culprits(target: Target, points: np.ndarray) -> list[str]:
    """The parameters that make the first point's value finite when they alone are moved."""
    found = []
    for name, where in target.space.slices.items():
        moved = np.tile(points[:1], (len(points), 1))
        # farther than the starts reached, the same for every number of the parameter; then each its own way
        far = np.geomspace(12, 1e4, len(points) // 5)
        steps = np.concatenate([np.linspace(-10, 10, len(points) // 5), far, -far])
        moved[: len(steps), where] = steps[:, None]
        moved[len(steps) :, where] = 2 * points[len(steps) :, where]
        if np.isfinite(value_and_score_of_rows(target, moved)[0]).any():
            found.append(name)
    return found


def _quote(names: list[str]) -> str:
    return ", ".join(f"`{n}`" for n in names) or "no parameter"
