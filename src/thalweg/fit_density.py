"""The door `fit_density`: from draws to a flow with their density."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from thalweg._core import (
    Seed,
    as_key,
    check_choice,
    check_positive,
    check_positive_int,
    from_numpy,
    numpy_rng,
    precision,
    requirement,
    resolve_dtype,
    split_on_host,
)
from thalweg.distributions import AbstractSampler
from thalweg.fit import DensityFit
from thalweg.flows import FLOWS, make_flow
from thalweg.objectives import ForwardKL
from thalweg.run import Checkpoint, Progress, Status, run
from thalweg.targets import digest

_FEWEST, _MOST_HELD_OUT = 20, 5000
_COLLINEAR = 1e-10
"""Of a correlation matrix, the smallest eigenvalue that is one."""


def fit_density(
    x: Any,
    flow: str | AbstractSampler = "realnvp",
    seed: Seed = 0,
    progress: bool = True,  # noqa: FBT001, FBT002 (part of the public signature)
    *,
    steps: int = 10_000,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    held_out: float = 0.1,
    dtype: Any = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> Any:
    r"""Fit a flow to draws by maximum likelihood, $\max_q \sum_i \log q(x_i)$.

    A flow by name starts as the Gaussian of the draws' mean and covariance. Rows held out at random judge it, and it is
    kept at its best by them; once that has not grown beyond its noise for ten looks the fit cools down and stops. For a
    continuously-indexed flow ("cif-realnvp") log q is its lower bound.

    Args:
        x: draws, (n, d), finite; n of at least 20.
        flow: a name that `make_flow` knows, or a distribution on R^d built by hand.
        seed: an int or a JAX key: of the flow's first numbers, the rows held out and the minibatches.
        progress: whether to draw a bar on standard error.
        steps: the most steps.
        batch_size: rows a step.
        learning_rate: Adam's, at its highest.
        held_out: the share of rows that the flow does not learn from, at most a half, and at most 5000 of them.
        dtype: "float32" or "float64"; None for what JAX is set to.
        checkpoint: a file that keeps the state: now and then, and on SIGINT or SIGTERM.
        resume: go on from that file; draws and settings must be the same.

    Returns:
        The flow: `.sample(seed, n)`, `.log_prob(points)` (of an indexed one `.log_prob_bounds(seed, points)`).

    Raises:
        ValueError: for a bad argument, or draws of which a column is constant or follows from others.
        Interrupted: (a KeyboardInterrupt) on a signal, after the checkpoint has been written.
    """
    rows = _checked(x)
    for name, value in {"steps": steps, "batch_size": batch_size}.items():
        check_positive_int(name, value)
    check_positive("learning_rate", learning_rate)
    if not 0 < held_out <= 0.5:
        raise ValueError(requirement("held_out", "lie in (0, 0.5]", held_out))
    if resume and checkpoint is None:
        raise ValueError(requirement("checkpoint", "be the file to resume from", "None"))
    with precision(resolve_dtype(dtype)), Progress(show=progress) as bar:
        flow_key, rows_key, fit_key = split_on_host(as_key(seed), 3)
        order = numpy_rng(rows_key).permutation(len(rows))
        apart = min(max(round(held_out * len(rows)), 1), _MOST_HELD_OUT)
        judges, learnt = rows[order[:apart]], rows[order[apart:]]
        start = _start(flow, learnt, flow_key)
        objective = ForwardKL(learnt, batch_size=batch_size if batch_size < len(learnt) else None)
        process = DensityFit(objective, from_numpy(judges), learning_rate=learning_rate)
        kept = None
        if checkpoint is not None:
            told = {"flow": str(flow), "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
            told |= {
                "held_out": held_out,
                "seed": str(np.asarray(jax.random.key_data(as_key(seed)))),
                "rows": digest(rows),
                "dtype": resolve_dtype(dtype),
            }
            kept = Checkpoint(checkpoint, told, resume=resume)
        name = flow if isinstance(flow, str) else type(flow).__name__
        result = run(
            process,
            process.init(start),
            fit_key,
            steps=steps,
            name=f"density {name}",
            progress=bar,
            checkpoint=kept,
            quantity="log density",
        )
    if result.status is Status.DIVERGED:
        raise ValueError(requirement("x", "be draws of a density", f"ones on which the fit ran off: {result.status}"))
    return result.state.model


def _checked(x: Any) -> np.ndarray:
    """As rows of numbers.

    Raises:
        ValueError: if they are not.
    """
    try:
        rows = np.asarray(x, float)
    except (TypeError, ValueError) as error:
        raise ValueError(requirement("x", "hold numbers", f"{type(x).__name__}: {error}")) from error
    if rows.ndim != 2 or not rows.shape[1] or len(rows) < _FEWEST:
        raise ValueError(requirement("x", f"have shape (n, d), n of at least {_FEWEST}", rows.shape))
    if wrong := int((~np.isfinite(rows)).any(axis=1).sum()):
        raise ValueError(requirement("x", "be finite", f"{wrong:,} of {len(rows):,} rows that are not"))
    spread = rows.std(axis=0)
    if flat := np.flatnonzero(spread <= 1e-12 * np.abs(rows).max(axis=0)).tolist():
        raise ValueError(requirement("x", "vary in every column", f"a constant in column {flat[0]}", "leave it out"))
    return rows


def _start(flow: str | AbstractSampler, rows: np.ndarray, key: Any) -> AbstractSampler:
    """A flow by name as the Gaussian of the rows, or the one that was given."""
    size = rows.shape[1]
    if not isinstance(flow, str):
        if not isinstance(flow, AbstractSampler) or flow.context_shape is not None or flow.shape != (size,):
            got = f"{type(flow).__name__} of shape {getattr(flow, 'shape', None)}"
            raise ValueError(requirement("flow", f"be a name, or a distribution on R^{size} without a context", got))
        return flow
    check_choice("flow", flow, FLOWS)
    loc, scale = rows.mean(axis=0), rows.std(axis=0)
    correlation = np.corrcoef(rows, rowvar=False).reshape(size, size)
    if len(rows) > size and np.linalg.eigvalsh(correlation)[0] < _COLLINEAR:
        remedy = "leave out columns that follow from others, or add noise"
        raise ValueError(
            requirement("x", "vary in every direction", "columns of which one follows from others", remedy)
        )
    # few rows know little of their covariance
    shrunk = correlation + (size / len(rows)) * np.eye(size)
    sd = np.sqrt(np.diagonal(shrunk))
    return make_flow(
        flow, size, loc=loc, scale_tril=scale[:, None] * np.linalg.cholesky(shrunk / np.outer(sd, sd)), seed=key
    )
