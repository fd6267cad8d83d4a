"""Thalweg: probabilistic inference with normalizing flows, on JAX, Equinox and Optax."""

from thalweg import bijections, diagnostics, distributions, objectives
from thalweg._core import FileError, register
from thalweg.calibrate import Calibration, calibrate
from thalweg.fit_density import fit_density
from thalweg.flows import FLOWS, make_flow
from thalweg.infer import infer
from thalweg.posterior import Bound, Comparison, Estimate, Posterior, Verdict, compare, load
from thalweg.report import report
from thalweg.run import Evaluations, Interrupted, Status
from thalweg.targets import (
    Target,
    cholesky_corr,
    circular,
    covariance,
    from_file,
    from_function,
    from_likelihood,
    from_numpyro,
    from_pymc,
    from_stan,
    greater_than,
    interval,
    less_than,
    ordered,
    positive,
    positive_ordered,
    real,
    simplex,
    unit_vector,
    zero_sum,
)

__version__ = "0.1.0"

__all__ = [
    "FLOWS",
    "Bound",
    "Calibration",
    "Comparison",
    "Estimate",
    "Evaluations",
    "FileError",
    "Interrupted",
    "Posterior",
    "Status",
    "Target",
    "Verdict",
    "bijections",
    "calibrate",
    "cholesky_corr",
    "circular",
    "compare",
    "covariance",
    "diagnostics",
    "distributions",
    "fit_density",
    "from_file",
    "from_function",
    "from_likelihood",
    "from_numpyro",
    "from_pymc",
    "from_stan",
    "greater_than",
    "infer",
    "interval",
    "less_than",
    "load",
    "make_flow",
    "objectives",
    "ordered",
    "positive",
    "positive_ordered",
    "real",
    "register",
    "report",
    "simplex",
    "unit_vector",
    "zero_sum",
]
