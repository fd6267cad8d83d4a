"""Log densities and their makers: what there is to infer, seen from R^d."""

from thalweg.targets._check import check_log_density
from thalweg.targets._curvature import Sparsity, mean_hessian, sparsity_of
from thalweg.targets._data import digest
from thalweg.targets._function import from_function, from_likelihood
from thalweg.targets._model_file import from_file
from thalweg.targets._numpyro import as_numpyro, from_numpyro
from thalweg.targets._pymc import from_pymc
from thalweg.targets._rows import (
    Stack,
    check_same_target,
    describe_target,
    is_artefact,
    is_mostly_rounding,
    is_rounding,
    log_density_of_rows,
    value_and_score_of_rows,
)
from thalweg.targets._simulate import Simulator
from thalweg.targets._space import AbstractSpace, MappedSpace, Space
from thalweg.targets._stan import from_stan
from thalweg.targets._start import Starts, find_start
from thalweg.targets._support import (
    Support,
    cholesky_corr,
    circular,
    covariance,
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
from thalweg.targets._target import Target

__all__ = [
    "AbstractSpace",
    "MappedSpace",
    "Simulator",
    "Space",
    "Sparsity",
    "Stack",
    "Starts",
    "Support",
    "Target",
    "as_numpyro",
    "check_log_density",
    "check_same_target",
    "cholesky_corr",
    "circular",
    "covariance",
    "describe_target",
    "digest",
    "find_start",
    "from_file",
    "from_function",
    "from_likelihood",
    "from_numpyro",
    "from_pymc",
    "from_stan",
    "greater_than",
    "interval",
    "is_artefact",
    "is_mostly_rounding",
    "is_rounding",
    "less_than",
    "log_density_of_rows",
    "mean_hessian",
    "ordered",
    "positive",
    "positive_ordered",
    "real",
    "simplex",
    "sparsity_of",
    "unit_vector",
    "value_and_score_of_rows",
    "zero_sum",
]
