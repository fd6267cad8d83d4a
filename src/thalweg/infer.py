"""The door `infer`: from a log density to a posterior with a verdict."""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from thalweg._core import (
    PRNGKeyArray,
    Seed,
    ahead,
    as_key,
    check_choice,
    check_positive,
    check_positive_int,
    counted,
    counting,
    no_longer_than_this,
    one_blas_thread,
    precision,
    requirement,
    resolve_dtype,
    split_on_host,
)
from thalweg.distributions import AbstractSampler
from thalweg.flows import FLOWS, make_flow
from thalweg.ladder import Budget, Climb, fit_gaussians_each, turned
from thalweg.posterior import Posterior, from_datatree, rehearse
from thalweg.run import Checkpoint, Evaluations, Limit, Progress
from thalweg.targets import Starts, Target, describe_target, find_start

_OF_A_POSTERIOR = 2000
"""Draws of an earlier one to begin at."""


def infer(
    target: Target,
    flow: str | AbstractSampler = "auto",
    seed: Seed = 0,
    budget: float | Evaluations | None = None,
    init: Any = None,
    mesh: Mesh | None = None,
    dtype: Any = None,
    progress: bool = True,  # noqa: FBT001, FBT002 (part of the public signature)
    *,
    steps: int | None = None,
    n_draws: int = 128,
    learning_rate: float = 1e-2,
    batch_size: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> Posterior:
    """Fit a flow posterior to a log density by variational inference.

    A full-rank Gaussian is fitted first, by natural gradients from several starts; a flow on top of it follows, by
    path gradients of the reverse KL. With "auto" the flow (RealNVP; a spline for one parameter) is left out where the
    Gaussian's importance weights are good already, a NumPyro model is non-centred where that fits better, tails that
    fall as a power get Student-t's, separate modes get a mixture (many of them one spline flow, which learns from
    tempered particles), and where the weights cannot be trusted in the end Markov chains go on from the flow
    (`Posterior.refine`). All randomness comes from `seed`.

    Args:
        target: from `from_function`, `from_likelihood`, `from_numpyro`, `from_pymc` or `from_stan`.
        flow: "auto", a name that `make_flow` knows ("gaussian", "realnvp", "spline", "iaf", ...; `FLOWS` has them
            all), or a distribution on R^d built by hand, which is fitted as it is.
        seed: an int or a JAX key.
        budget: seconds for the fit, or `Evaluations(n)` of the log density, which is the same on every machine. What
            the verdict asks for comes on top: some 30,000 evaluations, and where weights are good 50,000 to 250,000
            more, to see whether chains and tails lead beyond the draws. None for no bound.
        init: where to start: a point, name -> constrained value; or draws, name -> (m, *shape), an ArviZ DataTree
            (another method's posterior) or a `Posterior`: the Gaussian begins with their mean and covariance, and
            modes are looked for from some of them too. By default 0. Random points in [-2, 2]^d are tried beside it.
        mesh: devices (a `jax.sharding.Mesh`) to cut a step's draws over; None for one.
        dtype: "float32" or "float64"; None for what JAX is set to (float32 unless you changed it).
        progress: whether to draw a bar on standard error.
        steps: the most steps of the flow; by default 500, then 2500 more if its weights ask for them.
        n_draws: draws a step.
        learning_rate: Adam's, at its highest.
        batch_size: rows of data a step of the flow, for a target from `from_likelihood`; None for all. The Gaussian and
            the weights always see all rows; the flow's learning rate is scaled by sqrt(batch_size / rows).
        checkpoint: a file that keeps the state: now and then, after each stage, and on SIGINT or SIGTERM.
        resume: go on from that file, to the same bits as without the stop; target and settings must be the same.

    Returns:
        A `Posterior`; `posterior.verdict` says whether to believe it.

    Raises:
        ValueError: for a bad argument, or a log density that is NaN or -inf wherever it can be started.
        Interrupted: (a KeyboardInterrupt) on a signal, after the checkpoint has been written.
    """
    _check_target(target)
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise ValueError(requirement("checkpoint", "be a file in a folder that is there", checkpoint))
    if resume and checkpoint is None:
        raise ValueError(requirement("checkpoint", "be the file to resume from", "None"))
    numbers = {"steps": steps, "n_draws": n_draws, "learning_rate": learning_rate, "batch_size": batch_size}
    settings = checked_settings(target, flow, dtype=dtype, **numbers)
    _check_mesh(mesh, n_draws)
    dtype, began = settings["dtype"], time.monotonic()
    settings["seed"] = seed if isinstance(seed, int) else str(np.asarray(jax.random.key_data(as_key(seed))))
    with precision(dtype), Progress(show=progress) as bar, counting(), contextlib.ExitStack() as inside:
        limit = Limit.of(budget)
        inside.enter_context(no_longer_than_this())
        target = target.in_default_precision()
        init = None if init is None else from_datatree(_draws_of(init), target.names)
        if isinstance(flow, str) and flow in ("auto", "gaussian"):
            _prepare(target)
        inside.enter_context(one_blas_thread())
        target, starts, climb_key = _start(target, as_key(seed), init)
        kept = None
        if checkpoint is not None:
            told = {k: str(v) for k, v in {**describe_target(target), "init": starts.points[0].tolist()}.items()}
            kept = Checkpoint(checkpoint, {**settings, **told}, resume=resume)
        posterior = Climb(target, settings, climb_key, Budget(limit, bar, kept), mesh).run(flow, starts)
        posterior.settings["evaluations"] = counted().total
    posterior.settings["seconds"] = round(time.monotonic() - began, 2)
    return posterior


def checked_settings(
    target: Target,
    flow: str | AbstractSampler,
    *,
    dtype: Any = None,
    steps: int | None = None,
    n_draws: int = 128,
    learning_rate: float = 1e-2,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """What decides a climb's result, checked.

    Raises:
        ValueError: if one of them is not what `infer` takes.
    """
    dtype = resolve_dtype(dtype)
    _check_flow(flow)
    _check_numbers(steps=steps, n_draws=n_draws, batch_size=batch_size, learning_rate=learning_rate)
    if batch_size is not None and not target.is_split:
        raise ValueError(requirement("batch_size", "be None unless the target comes from from_likelihood", batch_size))
    return {
        "model": target.name,
        "flow": flow if isinstance(flow, str) else type(flow).__name__,
        "steps": steps,
        "n_draws": n_draws,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "dtype": dtype,
    }


def prepare_each(
    targets: Sequence[Target], flow: str | AbstractSampler, keys: Sequence[PRNGKeyArray], settings: dict[str, Any]
) -> list[Callable[[], Posterior]]:
    """`infer` for targets that differ in the numbers of their data: the Gaussians of all are fitted at once.

    Args:
        targets: in the precision that is JAX's default now.
        flow: as for `infer`.
        keys: one for each target.
        settings: what decides the result, as a `Climb` takes it.

    Returns:
        What goes on to each posterior; it raises as `infer` does.
    """
    budget = Budget(Limit.of(None), Progress(show=False), None)
    begun: list[Any] = []
    for target, key in zip(targets, keys, strict=True):
        try:
            begun.append(_start(target, key, None))
        except ValueError as error:
            begun.append(error)
    good = [i for i, one in enumerate(begun) if not isinstance(one, ValueError)]
    rungs: dict[int, Any] = {}
    if isinstance(flow, str) and len(good) == len(targets) and not targets[0].space.turns:
        # none of the keys of the climbs themselves
        key = jax.random.fold_in(keys[0], len(keys))
        rungs = dict(enumerate(fit_gaussians_each([b[0] for b in begun], [b[1] for b in begun], key, budget)))

    def finish(i: int) -> Posterior:
        if isinstance(begun[i], ValueError):
            raise begun[i]
        target, starts, key = begun[i]
        with no_longer_than_this():
            return Climb(target, dict(settings), key, budget, None).run(flow, starts, rungs.get(i))

    return [functools.partial(finish, i) for i in range(len(targets))]


def _draws_of(init: Any) -> Any:
    """Of an earlier posterior its draws, corrected where they can be trusted; anything else as it is."""
    if not isinstance(init, Posterior):
        return init
    corrects = init.verdict.ok and init.target is not None
    return init.resample(_OF_A_POSTERIOR) if corrects else init.sample(_OF_A_POSTERIOR)


def _prepare(target: Target) -> None:
    """Compile what a Gaussian's weights ask for, beside the search for a start, which compiles the gradient.

    Not where matrices are factorised, or Python is called back: those of two programs may wait for each other.
    """
    if not target.runs_alone:
        ahead(lambda: rehearse(make_flow("gaussian", target.size), target))


def _start(target: Target, key: PRNGKeyArray, init: Any) -> tuple[Target, Starts, PRNGKeyArray]:
    """(the target, cut open where it should be; where to begin; the key of all that follows)."""
    start_key, climb_key = split_on_host(key, 2)
    starts = find_start(target, start_key, init)
    if (cut := turned(target, starts.points)) is not target:
        target, starts = cut, find_start(cut, start_key, init)
    return target, starts, climb_key


def _check_target(target: Any) -> None:
    if not isinstance(target, Target):
        got = getattr(target, "__name__", type(target).__name__)
        remedy = "wrap it: from_function(log_density, supports) or from_numpyro(model, *data)"
        raise ValueError(requirement("target", "be a Target", got, remedy))


def _check_flow(flow: Any) -> None:
    if isinstance(flow, str):
        check_choice("flow", flow, ("auto", *FLOWS))
    elif not isinstance(flow, AbstractSampler):
        got = getattr(flow, "__name__", type(flow).__name__)
        raise ValueError(requirement("flow", f"be a distribution, or one of auto, {', '.join(FLOWS)}", got))
    elif flow.context_shape is not None:
        raise ValueError(requirement("flow", "be conditioned on nothing", f"a context of shape {flow.context_shape}"))


def _check_numbers(*, learning_rate: Any, **whole: Any) -> None:
    for name, value in whole.items():
        if value is not None:
            check_positive_int(name, value)
    check_positive("learning_rate", learning_rate)


def _check_mesh(mesh: Any, n_draws: int) -> None:
    if mesh is None:
        return
    if not isinstance(mesh, Mesh):
        raise ValueError(requirement("mesh", "be a jax.sharding.Mesh", type(mesh).__name__))
    if n_draws % mesh.size:
        raise ValueError(requirement("n_draws", f"be a multiple of the mesh's {mesh.size} devices", n_draws))
