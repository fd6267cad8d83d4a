"""One row for every export of `thalweg.distributions`: what the contract tests run over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import logsumexp

from bijections_rows import SMALL
from helpers import noised
from thalweg.bijections import (
    AffineTransformer,
    Autoregressive,
    Chain,
    Coupling,
    Planar,
    Radial,
    Scan,
    SplineTransformer,
    TriangularAffine,
)
from thalweg.distributions import (
    AbstractDistribution,
    Augmented,
    LowRankNormal,
    Mixture,
    Normal,
    StandardNormal,
    StudentT,
    TrainableStudentT,
    Transformed,
    UniformBox,
)

MEAN = np.array([1.0, -0.5, 0.3])
FACTOR = np.array([[1.2, 0, 0], [0.4, 0.7, 0], [-0.6, 0.9, 0.8]])
MARGINAL_MEAN = MEAN[:2]
LOW_RANK = np.array([[0.8], [-0.5]])
BOX = np.sinh((18 / 700) * (np.array([[-60, 35], [20, 90]]) + 0.5))
"""Sides at the edges of the contract test's cells, so that its sums are exact."""
MARGINAL_COVARIANCE: Any = (FACTOR @ FACTOR.T)[:2, :2]


@dataclass(frozen=True)
class Row:
    """One exact distribution under the contract.

    Attributes:
        export: the export it is the row of.
        build: makes it, in the precision that holds at the call.
        note: tells rows of one export apart.
        scipy: its log density by SciPy, where SciPy knows it.
        bounded: whether its density is 0 somewhere.
    """

    export: str
    build: Callable[[], AbstractDistribution]
    note: str = ""
    scipy: Callable[[Any], Any] | None = None
    bounded: bool = False

    def __str__(self) -> str:
        return f"{self.export}-{self.note}" if self.note else self.export


def _gaussian(d: int) -> Transformed:
    return Transformed(StandardNormal((d,)), TriangularAffine(MEAN[:d], FACTOR[:d, :d]))


def _spline_coupling(context_size: int | None = None) -> Coupling:
    return Coupling(2, SplineTransformer(bins=5, bound=3.0), context_size=context_size, **SMALL)


ROWS = [
    Row("StandardNormal", lambda: StandardNormal(()), "scalar", stats.norm.logpdf),
    Row("StandardNormal", lambda: StandardNormal((2,)), "", lambda x: stats.norm.logpdf(x).sum(-1)),
    Row("StudentT", lambda: StudentT((1,), 3.0), "1d", lambda x: stats.t.logpdf(x, 3)[..., 0]),
    Row("StudentT", lambda: StudentT((2,), 5.0), "", lambda x: stats.multivariate_t.logpdf(x, np.zeros(2), df=5)),
    Row("Normal", lambda: Normal(0.5, 2.0), "scalar", lambda x: stats.norm.logpdf(x, 0.5, 2)),
    Row(
        "Normal",
        lambda: Normal(MEAN[:2], [0.5, 2.0], trainable=False),
        "fixed",
        lambda x: stats.norm.logpdf(x, MEAN[:2], [0.5, 2.0]).sum(-1),
    ),
    Row(
        "LowRankNormal",
        lambda: LowRankNormal(MEAN[:2], [0.5, 2.0], LOW_RANK),
        "",
        lambda x: stats.multivariate_normal.logpdf(x, MEAN[:2], np.diag([0.25, 4.0]) + LOW_RANK @ LOW_RANK.T),
    ),
    Row(
        "TrainableStudentT",
        lambda: TrainableStudentT((2,), [3.0, 8.0]),
        "",
        lambda x: stats.t.logpdf(x, [3, 8]).sum(-1),
    ),
    Row(
        "UniformBox",
        lambda: UniformBox(*BOX[:, 0]),
        "scalar",
        lambda x: stats.uniform.logpdf(x, BOX[0, 0], np.ptp(BOX[:, 0])),
        bounded=True,
    ),
    Row(
        "UniformBox",
        lambda: UniformBox(*BOX),
        "",
        lambda x: stats.uniform.logpdf(x, BOX[0], BOX[1] - BOX[0]).sum(-1),
        bounded=True,
    ),
    Row(
        "Transformed",
        lambda: Transformed(Normal(MEAN[:2], [0.5, 2.0]), TriangularAffine(MEAN[:2], FACTOR[:2, :2])),
        "trainable-base",
        lambda x: stats.multivariate_normal.logpdf(
            x, MEAN[:2] + FACTOR[:2, :2] @ MEAN[:2], FACTOR[:2, :2] @ np.diag([0.25, 4.0]) @ FACTOR[:2, :2].T
        ),
    ),
    Row(
        "Transformed",
        lambda: _gaussian(2),
        "gaussian",
        lambda x: stats.multivariate_normal.logpdf(x, MARGINAL_MEAN, MARGINAL_COVARIANCE),
    ),
    Row(
        "Mixture",
        lambda: Mixture([Normal(0.5, 2.0), Normal(-1.0, 0.3), Normal(3.0, 1.0)], [1, 2, 5]),
        "scalar",
        lambda x: logsumexp(stats.norm.logpdf(x[..., None], [0.5, -1, 3], [2, 0.3, 1]), -1, [1 / 8, 2 / 8, 5 / 8]),
    ),
    Row(
        "Mixture",
        lambda: Mixture([_gaussian(2), Transformed(StandardNormal((2,)), TriangularAffine(-MEAN[:2], np.eye(2)))]),
        "flows",
    ),
    Row(
        "Transformed",
        lambda: noised(Transformed(StandardNormal((2,)), Scan([Planar(2, seed=s) for s in range(3)])), 0.5),
        "planar",
    ),
    Row(
        "Transformed",
        lambda: noised(Transformed(StandardNormal((2,)), Chain([_spline_coupling(2), Radial(2)])), 0.2),
        "spline-context",
    ),
    Row(
        "Transformed",
        lambda: noised(Transformed(StandardNormal((2,)), Autoregressive(2, AffineTransformer(), **SMALL)), 0.3),
        "autoregressive",
    ),
]


def conditional_gaussian(slope: Any, shift: float, scale: float) -> Transformed:
    """U given z in R^d: N(slope . z + shift, scale^2), u in R."""
    slope = np.asarray(slope)
    layer = Coupling(1, AffineTransformer(), context_size=slope.size, depth=0)
    weights = jnp.asarray(np.stack([np.zeros(slope.size), slope]))
    biases = jnp.asarray([2 * np.arctanh(np.log(scale) / 2), shift])
    layer = eqx.tree_at(lambda f: (f.conditioner.weights, f.conditioner.biases), layer, ((weights,), (biases,)))
    return Transformed(StandardNormal((1,)), layer)


def exact_augmented() -> Augmented:
    """(z, u) jointly Gaussian, with the true u given z as the reverse."""
    covariance = FACTOR @ FACTOR.T
    slope = np.linalg.solve(covariance[:2, :2], covariance[:2, 2])
    scale = np.sqrt(covariance[2, 2] - slope @ covariance[:2, 2])
    return Augmented(_gaussian(3), conditional_gaussian(slope, MEAN[2] - slope @ MEAN[:2], scale))


def marginal_log_prob(z: Any) -> Any:
    """Log q(z) under `exact_augmented`."""
    return stats.multivariate_normal.logpdf(np.asarray(z), MARGINAL_MEAN, MARGINAL_COVARIANCE)


# those that are not exact have their own tests; LogProbBounds is what they are asked for
AUXILIARY = {"Augmented", "ContinuouslyIndexed", "LogProbBounds"}
EXPORTS = {row.export for row in ROWS} | AUXILIARY | {"DefensiveDraws", "defensive_draws"}
