"""One mode each: funnels, bananas, heavy tails, bad scales."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jax.scipy.stats import t as student

from thalweg._core import Array, Scalar, check_positive_int
from thalweg.problems._problem import Problem
from thalweg.targets import from_function, real


def funnel(size: int = 10) -> Problem:
    """x_0 ~ N(0, 3^2), the others N(0, exp(x_0)) (a variance). Source: Neal 2003."""
    check_positive_int("size", size)

    def log_density(p: dict[str, Array]) -> Scalar:
        x = p["x"]
        return norm.logpdf(x[0], 0, 3) + norm.logpdf(x[1:], 0.0, jnp.exp(x[0] / 2)).sum()

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        first = 3 * rng.standard_normal((n, 1))
        return np.hstack([first, np.exp(first / 2) * rng.standard_normal((n, size - 1))])

    return Problem(f"funnel-{size}", from_function(log_density, {"x": real(size)}), 0.0, draw)


def banana() -> Problem:
    """x_0 ~ N(0, 10^2), x_1 ~ N(0.03 (x_0^2 - 100), 1). Source: Haario et al. 1999, as in Inference Gym."""

    def log_density(p: dict[str, Array]) -> Scalar:
        x = p["x"]
        return norm.logpdf(x[0], 0, 10) + norm.logpdf(x[1], 0.03 * (x[0] ** 2 - 100), 1)

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        x = 10 * rng.standard_normal(n)
        return np.stack([x, 0.03 * (x**2 - 100) + rng.standard_normal(n)], 1)

    return Problem("banana", from_function(log_density, {"x": real(2)}), 0.0, draw)


def funana(size: int = 10) -> Problem:
    """x_0 ~ N(0, 10^2), x_1 ~ N(0, 3^2), the others N(0.03 (x_0^2 - 100), exp(x_1 / 2)). Agrawal, Domke 2024."""

    def log_density(p: dict[str, Array]) -> Scalar:
        x = p["x"]
        rest = norm.logpdf(x[2:], 0.03 * (x[0] ** 2 - 100), jnp.exp(x[1] / 2)).sum()
        return norm.logpdf(x[0], 0, 10) + norm.logpdf(x[1], 0, 3) + rest

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        bend, scale = 10 * rng.standard_normal((n, 1)), 3 * rng.standard_normal((n, 1))
        rest = 0.03 * (bend**2 - 100) + np.exp(scale / 2) * rng.standard_normal((n, size - 2))
        return np.hstack([bend, scale, rest])

    return Problem(f"funana-{size}", from_function(log_density, {"x": real(size)}), 0.0, draw)


def student_t(degrees: float, size: int = 10) -> Problem:
    """Independent Student-t's."""

    def log_density(p: dict[str, Array]) -> Scalar:
        return student.logpdf(p["x"], degrees).sum()

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_t(degrees, (n, size))

    return Problem(f"student-t-{degrees:g}", from_function(log_density, {"x": real(size)}), 0.0, draw)


def _normal(name: str, scale_tril: np.ndarray) -> Problem:
    size, log_det = len(scale_tril), float(np.log(np.diagonal(scale_tril)).sum())

    def log_density(p: dict[str, Array]) -> Scalar:
        factor = jnp.asarray(scale_tril, p["x"].dtype)
        return norm.logpdf(jax.scipy.linalg.solve_triangular(factor, p["x"], lower=True)).sum() - log_det

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_normal((n, size)) @ scale_tril.T

    return Problem(name, from_function(log_density, {"x": real(size)}), 0.0, draw)


def gaussian(size: int = 100, *, condition: float = 1e4) -> Problem:
    """A normal whose variances run over a range of `condition`, in directions turned at random."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((size, size)))[0]
    covariance = q * np.geomspace(1 / np.sqrt(condition), np.sqrt(condition), size) @ q.T
    return _normal(f"ill-conditioned-{size}", np.linalg.cholesky(covariance))


def correlated_gaussian(size: int = 50, *, correlation: float = 0.95) -> Problem:
    """A normal of unit variances, all correlated alike."""
    covariance = np.full((size, size), correlation) + (1 - correlation) * np.eye(size)
    return _normal(f"correlated-{size}", np.linalg.cholesky(covariance))
