"""What every door leads to: draws, density, evidence, a verdict, ArviZ, a file."""

from thalweg.posterior._arviz import from_datatree, preload
from thalweg.posterior._citation import CITATION, package_versions
from thalweg.posterior._compare import Compared, Comparison, compare
from thalweg.posterior._draws import (
    WeighedDraws,
    constrain,
    draw_and_score,
    rehearse,
    score,
    unconstrain,
    weigh,
)
from thalweg.posterior._estimates import Bound, Estimate, ModeShare
from thalweg.posterior._leak import charts_of, follow, metric_of
from thalweg.posterior._make import load, make_posterior, with_sharper_evidence
from thalweg.posterior._posterior import POOL, Posterior, WeightedDraws
from thalweg.posterior._verdict import LARGEST_RHAT, NOT_LOOKED_FOR, Verdict, judge

__all__ = [
    "CITATION",
    "LARGEST_RHAT",
    "NOT_LOOKED_FOR",
    "POOL",
    "Bound",
    "Compared",
    "Comparison",
    "Estimate",
    "ModeShare",
    "Posterior",
    "Verdict",
    "WeighedDraws",
    "WeightedDraws",
    "charts_of",
    "compare",
    "constrain",
    "draw_and_score",
    "follow",
    "from_datatree",
    "judge",
    "load",
    "make_posterior",
    "metric_of",
    "package_versions",
    "preload",
    "rehearse",
    "score",
    "unconstrain",
    "weigh",
    "with_sharper_evidence",
]
