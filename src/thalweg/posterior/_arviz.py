"""The one file that knows ArviZ and xarray."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thalweg._core import import_guest, requirement
from thalweg.targets import Target

_OURS = ("sample_stats", "unconstrained_posterior")
"""Groups whose variables the model does not name."""


def preload() -> None:
    """Import what `to_datatree` and its files need: a second that a command can spend while a fit compiles."""
    for name in ("arviz_base", "xarray", "h5netcdf"):
        import_guest(name, "core")


def _plain(name: str) -> str:
    """A name that a DataTree takes: NumPyro's scopes put a slash in, which is a path to it."""
    return name.replace("/", ".")


def from_datatree(tree: Any, names: Sequence[str]) -> dict[str, Any]:
    """The draws of some variables, name -> (n, *shape), chains one after the other.

    Args:
        tree: with a group "posterior" (a DataTree, or ArviZ's older InferenceData), or that group itself; or a
            mapping of arrays, which is given back as a dict.
        names: of the variables.

    Raises:
        ValueError: if there is no such group, or a variable is missing in it.
    """
    group = getattr(tree, "posterior", None)
    group = tree if group is None else group
    if not hasattr(group, "data_vars"):
        if isinstance(tree, Mapping):
            return dict(tree)
        must = "be a dict of parameter names and values, or of draws, an ArviZ DataTree or a Posterior"
        raise ValueError(requirement("init", must, type(tree).__name__))
    known = list(group.data_vars)
    missing = [n for n in names if _plain(n) not in known]
    if missing:
        raise ValueError(requirement("init", f"have draws of {', '.join(names)}", f"none of {', '.join(missing)}"))
    found = {}
    for name in names:
        variable = group[_plain(name)]
        chains = [d for d in ("chain", "draw", "sample") if d in variable.dims]
        values = np.asarray(variable.transpose(*chains, ...).values)
        found[name] = values.reshape(-1, *values.shape[len(chains) :])
    return found


class LeaveOneOut(NamedTuple):
    """PSIS-LOO of a model.

    Attributes:
        pointwise: expected log predictive density of every observation, left out, all observed variables' together.
        worst_khat: the largest Pareto shape.
    """

    pointwise: np.ndarray
    worst_khat: float


def leave_one_out(tree: Any) -> LeaveOneOut:
    """PSIS-LOO from a tree with a group log_likelihood, by arviz-stats (Vehtari, Gelman and Gabry 2017)."""
    loo = import_guest("arviz_stats", "core").loo
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of large Pareto shapes: they are given back
        found = [loo(tree, pointwise=True, var_name=name) for name in tree["log_likelihood"].data_vars]
    pointwise = np.concatenate([np.ravel(np.asarray(x.elpd_i)) for x in found])
    return LeaveOneOut(pointwise, float(max(np.max(np.asarray(x.pareto_k)) for x in found)))


def to_datatree(
    groups: dict[str, dict[str, np.ndarray]],
    observed: dict[str, np.ndarray],
    trace: dict[str, np.ndarray],
    target: Target,
    attributes: dict[str, Any],
    n_chains: int,
) -> Any:
    """Groups of (n, *shape) arrays, chain after chain, as a DataTree; empty groups are left out.

    Args:
        groups: group -> name -> (n, *shape).
        observed: name -> array, kept without chain and draw.
        trace: name -> (steps,), kept along the dimension "step".
        target: for names of dimensions and coordinates.
        attributes: of the posterior group.
        n_chains: divides n.
    """
    arviz_base, xarray = import_guest("arviz_base", "core"), import_guest("xarray", "core")
    chained = {
        group: {_plain(k): np.asarray(v).reshape(n_chains, -1, *np.shape(v)[1:]) for k, v in values.items()}
        for group, values in groups.items()
        if values
    }
    observed = {_plain(k): v for k, v in observed.items()}
    dims = {_plain(k): list(v) for k, v in dict(target.dims).items()}
    coords = {k: np.asarray(v) for k, v in dict(target.coords).items()}
    # a parameter may be called as what is ours, and its dims are not for that
    ours = {group: chained.pop(group) for group in _OURS if group in chained}
    theirs = {**chained, **({"observed_data": observed} if observed else {})}
    tree = arviz_base.from_dict(theirs, dims=dims, coords=coords, sample_dims=["chain", "draw"])
    for group, node in arviz_base.from_dict(ours, sample_dims=["chain", "draw"]).children.items():
        tree[group] = node
    if trace:
        steps = {k: ("step", np.asarray(v)) for k, v in trace.items() if k != "step"}
        tree["fit"] = xarray.DataTree(xarray.Dataset(steps, coords={"step": np.asarray(trace["step"])}))
    tree["posterior"].attrs.update(attributes)
    return tree
