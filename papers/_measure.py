"""What is known of a fit in the plane: both divergences, evidence, pictures."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg.diagnostics import log_mean_exp
from thalweg.problems import Problem
from thalweg.targets import log_density_of_rows


def reverse(flow: Any, problem: Problem, draws: int) -> dict[str, float]:
    """KL(q || p), of an auxiliary flow its bound, and the error of log Z by importance sampling; both with errors."""
    x, log_q = eqx.filter_jit(lambda q, key: q.sample_and_log_q(key, draws))(flow, jax.random.key(99))
    raw = log_density_of_rows(problem.target, np.asarray(x)) - np.asarray(log_q, float) - problem.log_evidence
    known = raw[np.isfinite(raw)]
    log_z, error = log_mean_exp(raw)
    return {
        "KL": float(-known.mean()),
        "KL error": float(known.std() / np.sqrt(len(known))),
        "log Z error": float(log_z),
        "log Z standard error": float(error),
    }


def forward(log_q: np.ndarray, problem: Problem, x: np.ndarray) -> dict[str, float]:
    """KL(p || q) from exact draws and log q there."""
    gap = log_density_of_rows(problem.target, x) - problem.log_evidence - log_q
    return {"forward KL": float(gap.mean()), "forward KL error": float(gap.std() / np.sqrt(len(gap)))}


def grid(reach: float, cells: int) -> tuple[np.ndarray, float]:
    """(middles of cells of [-reach, reach]^2, (cells^2, 2); the area of one)."""
    edges = np.linspace(-reach, reach, cells + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    return points, float((edges[1] - edges[0]) ** 2)


def picture(log_density: Any, reach: float, cells: int = 120) -> np.ndarray:
    """Of a density, (cells, cells): rows -> log density, or the draws of one that is not known."""
    points, area = grid(reach, cells)
    values = np.exp(np.asarray(log_density(points), float)).reshape(cells, cells)
    return (values / (values.sum() * area)).astype(np.float32)


def histogram(x: np.ndarray, reach: float, cells: int = 120) -> np.ndarray:
    """Of draws, as `picture` has it."""
    counts, _, _ = np.histogram2d(x[:, 0], x[:, 1], bins=cells, range=[[-reach, reach]] * 2)
    return (counts / (len(x) * (2 * reach / cells) ** 2)).astype(np.float32)


def log_prob_of_rows(flow: Any, x: np.ndarray, piece: int = 4000) -> np.ndarray:
    """Log q at rows, in pieces of one size."""
    score = eqx.filter_jit(lambda q, x: q.log_prob(x))
    padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % piece, axis=0)])
    parts = [np.asarray(score(flow, jnp.asarray(p))) for p in padded.reshape(-1, piece, x.shape[1])]
    return np.concatenate(parts)[: len(x)].astype(float)
