"""Numbers that say whether draws and weights can be believed: arrays in, numbers out, NumPy and SciPy alone."""

from thalweg.diagnostics._ess import all_but_even, bulk_ess, importance_ess, mcse_mean, rhat, tail_ess
from thalweg.diagnostics._evidence import bridge, log_mean_exp, weighted_quantile
from thalweg.diagnostics._psis import ParetoFit, Psis, fit_pareto, khat_threshold, mean_error, parameter_khat, psis
from thalweg.diagnostics._ranks import EcdfBand, ecdf, ecdf_band, uniformity
from thalweg.diagnostics._summary import SummaryRow, summarise

__all__ = [
    "EcdfBand",
    "ParetoFit",
    "Psis",
    "SummaryRow",
    "all_but_even",
    "bridge",
    "bulk_ess",
    "ecdf",
    "ecdf_band",
    "fit_pareto",
    "importance_ess",
    "khat_threshold",
    "log_mean_exp",
    "mcse_mean",
    "mean_error",
    "parameter_khat",
    "psis",
    "rhat",
    "summarise",
    "tail_ess",
    "uniformity",
    "weighted_quantile",
]
