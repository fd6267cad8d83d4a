"""The four energies in the plane of Rezende and Mohamed 2015."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Scalar, check_choice
from thalweg.problems._problem import Problem
from thalweg.targets import from_function, real

REACH, _SHARPNESS = 4.0, 8
"""Of the window: where it has fallen to 1/e, and the power that it falls by."""
_LOW, _HIGH, _CELLS = np.array([-7.0, -7.0]), np.array([7.0, 9.0]), (1400, 1600)


def energy(number: int) -> Problem:
    r"""exp(-U_k(z)), k = 1 to 4; Rezende and Mohamed 2015, Table 1.

    U_2 to U_4 do not grow along z_1, and so have no evidence: here they are multiplied by the window
    $\exp(-(z_1 / 4)^8)$, all but flat for |z_1| < 3. The evidence is a sum over a grid of cells of 0.01, exact draws
    are draws of its cells.

    Args:
        number: k.

    Raises:
        ValueError: if there is no such one.
    """
    k = int(check_choice("number", str(number), ("1", "2", "3", "4")))

    def log_density(p: dict[str, Array]) -> Scalar:
        return _log_density(k, p["x"][0], p["x"][1])

    edges = [np.linspace(a, b, n + 1) for a, b, n in zip(_LOW, _HIGH, _CELLS, strict=True)]

    @functools.cache
    def ladder() -> tuple[np.ndarray, float]:
        first, second = np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij")
        density = np.exp(np.asarray(_log_density(k, first, second), float)).ravel()
        total = np.cumsum(density)
        return total / total[-1], math.log(total[-1] * math.prod((_HIGH - _LOW) / _CELLS))

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        cells = np.searchsorted(ladder()[0], rng.random(n))
        at = np.stack(np.unravel_index(cells, _CELLS), axis=1) + rng.random((n, 2))
        return _LOW + at * (_HIGH - _LOW) / _CELLS

    return Problem(f"energy-{k}", from_function(log_density, {"x": real(2)}), ladder()[1], draw)


def _log_density(k: int, first: Any, second: Any) -> Array:
    wave = jnp.sin(2 * jnp.pi * first / 4)
    if k == 1:
        radius = jnp.sqrt(first**2 + second**2 + 1e-12)  # whose derivative at 0 is finite
        ends = jnp.logaddexp(-0.5 * ((first - 2) / 0.6) ** 2, -0.5 * ((first + 2) / 0.6) ** 2)
        return ends - 0.5 * ((radius - 2) / 0.4) ** 2
    window = -((first / REACH) ** _SHARPNESS)
    if k == 2:
        return window - 0.5 * ((second - wave) / 0.4) ** 2
    if k == 3:
        bump = 3 * jnp.exp(-0.5 * ((first - 1) / 0.6) ** 2)
        return window + _two(second - wave, second - wave + bump, 0.35)
    step = 3 / (1 + jnp.exp(-(first - 1) / 0.3))
    return window + _two(second - wave, second - wave + step, 0.4)


def _two(one: Any, other: Any, width: float) -> Array:
    return jnp.logaddexp(-0.5 * (one / width) ** 2, -0.5 * (other / 0.35) ** 2)
