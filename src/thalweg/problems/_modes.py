"""Separate modes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from scipy import integrate

from thalweg._core import Array, Scalar, check_choice
from thalweg.problems._problem import Problem
from thalweg.targets import from_function, real


def _normals(name: str, centers: np.ndarray, scale: float) -> Problem:
    """Equal weights, equal scales."""

    def log_density(p: dict[str, Array]) -> Scalar:
        x = p["x"]
        parts = norm.logpdf(x[None], jnp.asarray(centers, x.dtype), scale).sum(-1)
        return jax.nn.logsumexp(parts) - math.log(len(centers))

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        chosen = centers[rng.integers(len(centers), size=n)]
        return chosen + scale * rng.standard_normal(chosen.shape)

    return Problem(name, from_function(log_density, {"x": real(centers.shape[1])}), 0.0, draw, centers)


def lattice(modes: int = 9) -> Problem:
    """9 (or 16) normals of sd 0.25 on a square lattice over [-2, 2]^2 (or [-3, 3]^2). Source: Caterini et al. 2020."""
    side, end = {"9": (3, 2.0), "16": (4, 3.0)}[check_choice("modes", str(modes), ("9", "16"))]
    points = np.linspace(-end, end, side)
    return _normals(f"lattice-{modes}", np.array(list(itertools.product(points, points))), 0.25)


def gmm40() -> Problem:
    """40 normals of sd log(1 + e) in the plane, centers uniform on (-40, 40)^2. Source: Midgley et al. 2023."""
    centers = np.random.default_rng(0).uniform(-40, 40, (40, 2))
    return _normals("gmm40", centers, math.log1p(math.e))


def many_well(size: int = 32, *, rotated: bool = False) -> Problem:
    """Size / 2 independent double wells, exp(0.5 x + 6 x^2 - x^4 - 0.5 y^2), also turned by a fixed random rotation.

    2^(size / 2) modes, of masses 0.2 and 0.8 to the powers of their signs. Noe et al. 2019; Midgley et al. 2023.
    """
    wells = size // 2
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0] if rotated else np.eye(size)

    def well(x: np.ndarray) -> np.ndarray:
        return np.exp(0.5 * x + 6 * x**2 - x**4)

    one = integrate.quad(well, -4, 4, limit=200)[0]
    grid = np.linspace(-3.5, 3.5, 20_001)
    ladder = np.cumsum(well(grid))

    def log_density(p: dict[str, Array]) -> Scalar:
        x = p["x"] @ jnp.asarray(turn, p["x"].dtype) if rotated else p["x"]
        x, y = x[::2], x[1::2]
        return (0.5 * x + 6 * x**2 - x**4 - 0.5 * y**2).sum()

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        x = np.interp(rng.random((n, wells)), ladder / ladder[-1], grid)
        straight = np.stack([x, rng.standard_normal((n, wells))], -1).reshape(n, size)
        return straight @ turn.T

    name = f"many-well-{size}" + ("-rotated" if rotated else "")
    log_evidence = wells * (math.log(one) + 0.5 * math.log(2 * math.pi))
    return Problem(name, from_function(log_density, {"x": real(size)}), log_evidence, draw)


def ring(radius: float = 4.0, width: float = 0.3) -> Problem:
    """A ring in the plane, exp(-(|x| - radius)^2 / 2 width^2)."""

    def log_density(p: dict[str, Array]) -> Scalar:
        # the root's derivative is not finite at 0
        return -0.5 * ((jnp.sqrt((p["x"] ** 2).sum() + 1e-12) - radius) / width) ** 2

    def density(r: np.ndarray) -> np.ndarray:
        return r * np.exp(-0.5 * ((r - radius) / width) ** 2)

    grid = np.linspace(max(0.0, radius - 10 * width), radius + 10 * width, 20_001)
    ladder = np.cumsum(density(grid))

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        r, angle = np.interp(rng.random(n), ladder / ladder[-1], grid), 2 * np.pi * rng.random(n)
        return np.stack([r * np.cos(angle), r * np.sin(angle)], 1)

    log_evidence = math.log(2 * math.pi * integrate.quad(density, 0, radius + 10 * width)[0])
    return Problem("ring", from_function(log_density, {"x": real(2)}), log_evidence, draw)
