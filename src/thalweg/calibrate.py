"""Whether the whole procedure is right for a model: parameters and data from the model, a posterior, a rank."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import (
    Array,
    PRNGKeyArray,
    Seed,
    as_key,
    check_positive_int,
    counting,
    in_pieces,
    one_blas_thread,
    precision,
    register,
    requirement,
    rows_jit,
    split_on_host,
)
from thalweg.diagnostics import uniformity
from thalweg.infer import checked_settings, prepare_each
from thalweg.posterior import package_versions
from thalweg.run import AbstractProcess, Checkpoint, Evaluations, Limit, Progress, Status, run
from thalweg.targets import Simulator, Target, describe_target

LOG_DENSITY = "log density"
"""The name of a quantity that sees what parameters alone do not: a posterior that is the prior, say."""
_LEVELS = (0.5, 0.8, 0.95)
_SIGNIFICANT = 0.05
_FEWEST = 20
_PIECE = 256
_TOGETHER = 8
"""Data sets whose Gaussians are fitted at once."""
_FAILED, _REFUSED, _TRUSTED = 0, 1, 2


class Quantity(NamedTuple):
    """One scalar's ranks, in the runs that were trusted.

    Attributes:
        name: `theta[0]`, or "log density".
        pit: where among the posterior's draws the true value was, 0 below all of them, 1 above, (n,).
        p_value: the chance of ranks as uneven, of a procedure that is right (`uniformity`).
        coverage: level -> the share of the runs whose central interval held the true value.
    """

    name: str
    pit: np.ndarray
    p_value: float
    coverage: dict[float, float]


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true parameters among draws of their posteriors.

    Attributes:
        name: of the model.
        ranks: quantity -> how many of the draws were below the true value, (n, *shape).
        n_draws: how many draws each posterior gave.
        outcome: (n,), 2 where the verdict trusted the posterior, 1 where it did not, 0 where the fit failed.
        khat: of each posterior's weights, (n,).
        failures: sentences of the fits that failed, each once.
        settings: what decided the result.
        versions: of the packages that made it.
    """

    name: str
    ranks: dict[str, np.ndarray]
    n_draws: int
    outcome: np.ndarray
    khat: np.ndarray
    failures: tuple[str, ...]
    settings: dict[str, Any]
    versions: dict[str, str]

    @property
    def n_trusted(self) -> int:
        """How many posteriors were trusted."""
        return int(np.sum(self.outcome == _TRUSTED))

    def quantities(self, *, trusted: bool = True) -> list[Quantity]:
        """Every scalar's ranks, spread evenly within their steps; of the trusted runs, or of all that did not fail.

        To leave out what was not trusted biases nothing: whether it was depends on the data alone, and given the data
        the true parameters are draws of the posterior.
        """
        rng, found = np.random.default_rng(0), []
        kept = self.outcome == _TRUSTED if trusted else self.outcome != _FAILED
        for name, ranks in self.ranks.items():
            for index in np.ndindex(ranks.shape[1:]):
                own = ranks[(kept, *index)]
                pit = (own + rng.random(len(own))) / (self.n_draws + 1)
                label = f"{name}[{','.join(map(str, index))}]" if index else name
                coverage = {c: float(np.mean(np.abs(pit - 0.5) <= c / 2)) for c in _LEVELS}
                found.append(Quantity(label, pit, uniformity(pit) if len(pit) else np.nan, coverage))
        return found

    @property
    def p_value(self) -> float:
        """The chance that the worst of all quantities is as uneven, of a procedure that is right (Bonferroni)."""
        each = [q.p_value for q in self.quantities()]
        return float(min(1.0, len(each) * np.min(each))) if self.n_trusted else np.nan

    @property
    def ok(self) -> bool:
        """Whether the ranks of the trusted posteriors are even, and there are enough of them to say so."""
        return self.n_trusted >= _FEWEST and self.p_value >= _SIGNIFICANT

    def __str__(self) -> str:
        """One or two sentences."""
        n, trusted = len(self.outcome), self.n_trusted
        refused, failed = int(np.sum(self.outcome == _REFUSED)), int(np.sum(self.outcome == _FAILED))
        told = f"{trusted} of {n} posteriors were trusted"
        told += f", {refused} refused" * bool(refused) + f", {failed} failed" * bool(failed)
        if trusted < _FEWEST:
            return f"Nothing can be said: {told}, and {_FEWEST} are needed."
        quantities = self.quantities()
        worst = min(quantities, key=lambda q: q.p_value)
        count = f"{len(quantities)} quantities" if len(quantities) > 1 else "the quantity"
        if self.ok:
            return f"Calibrated: the ranks of {count} are even (p = {self.p_value:.2g}); {told}."
        bias = np.mean(worst.pit) - 0.5
        far = np.mean(np.abs(worst.pit - 0.5)) - 0.25
        words = "too wide" if far < 0 else "too narrow"
        if abs(bias) > 2 * abs(far):
            words = "too low" if bias > 0 else "too high"
        return (
            f"Not calibrated: the ranks of {worst.name} are uneven (p = {self.p_value:.2g} for the worst of {count}); "
            f"its posteriors are {words}; {told}."
        )


class _State(NamedTuple):
    """What is known so far: a row a run."""

    ranks: dict[str, np.ndarray]
    outcome: np.ndarray
    khat: np.ndarray


class _Runs(AbstractProcess[_State]):
    """Each step simulates, infers and ranks; what can be done for several data sets at once is."""

    simulator: Simulator
    flow: Any
    n: int
    n_draws: int
    settings: dict[str, Any]
    failures: list[str]
    together: dict[int, list[Any]]
    chunk: int = 1

    def _prepared(self, key: PRNGKeyArray, index: int) -> Any:
        """(true parameters, target, what goes on to its posterior, key of its draws) of run `index`.

        A group always holds the same runs, wherever a resumed calibration begins.
        """
        group, place = divmod(index, _TOGETHER)
        if group not in self.together:
            size = min(_TOGETHER, self.n)
            # the last group is filled up: another number of data sets would compile anew
            runs = np.minimum(group * _TOGETHER + np.arange(size), self.n - 1)
            keys = [split_on_host(jax.random.fold_in(key, int(run)), 3) for run in runs]
            simulated = [self.simulator(simulate_key) for simulate_key, _, _ in keys]
            targets, fit_keys = [target for _, target in simulated], [fit_key for _, fit_key, _ in keys]
            ways = prepare_each(targets, self.flow, fit_keys, self.settings)
            self.together.clear()
            self.together[group] = [
                (*pair, way, draw_key) for pair, way, (_, _, draw_key) in zip(simulated, ways, keys, strict=True)
            ]
        return self.together[group][place]

    def advance(self, state: _State, key: PRNGKeyArray, first: int, n: int) -> tuple[_State, dict[str, np.ndarray]]:
        """Runs first ... first + n - 1, from keys of their own."""
        khat = np.empty(n)
        for i in range(n):
            truth, target, infer, draw_key = self._prepared(key, first + i)
            try:
                posterior = infer()
                draws = posterior.resample(self.n_draws, draw_key)
            except ValueError as error:
                self.failures.append(str(error))
                khat[i] = state.khat[first + i] = np.inf
                continue
            for name, rank in _ranks(target, truth, draws).items():
                state.ranks[name][first + i] = rank
            khat[i] = state.khat[first + i] = posterior.verdict.khat
            state.outcome[first + i] = _TRUSTED if posterior.verdict.ok else _REFUSED
        return state, {"elbo": khat}

    def review(
        self, state: _State, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[_State, Status | None]:
        """One after the other, to the end."""
        return state, None


def calibrate(
    target: Target,
    n: int = 100,
    flow: Any = "auto",
    seed: Seed = 0,
    budget: float | Evaluations | None = None,
    *,
    simulate: Any = None,
    draws: int = 1000,
    dtype: Any = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    **options: Any,
) -> Calibration:
    """Simulation-based calibration of `infer` for a model: is a 90 % interval right nine times in ten?

    Parameters are drawn from the prior and data from the likelihood at them; the posterior of those data, as `infer`
    makes it with its verdict, should hold the parameters as one more draw. So their ranks among corrected draws are
    even, for the parameters, the deterministic quantities and the log density. Data of one form compile once.

    Args:
        target: a model; its data say of what form the simulated ones are, and what is not simulated (covariates).
        n: how many data sets.
        flow: as for `infer`.
        seed: an int or a JAX key.
        budget: seconds for all of it, or `Evaluations(n)` of the log density; None for no bound.
        simulate: (key, data) -> (parameters by name, data of the same form); None for the target's own, or the draws of
            NumPyro and PyMC models, where what they observe is one of their data arrays.
        draws: corrected draws that each true value is ranked among.
        dtype: "float32" or "float64"; None for what JAX is set to.
        progress: whether to draw a bar on standard error.
        checkpoint: a file that keeps the ranks after every run.
        resume: go on from that file.
        **options: more of `infer`'s: steps, n_draws of a step, learning_rate, batch_size.

    Returns:
        A `Calibration`; its `ok` and its sentence say whether the procedure is calibrated.

    Raises:
        ValueError: for a bad argument, a model that cannot be simulated from, or data that no fit succeeds on.
        Interrupted: (a KeyboardInterrupt) on a signal.

    Sources: Talts et al. 2018; Modrak et al. 2023 for the log density; Saeilynoja et al. 2022 for the bands.
    """
    if not isinstance(target, Target):
        remedy = "wrap it: from_numpyro(model, *data), or from_function(log_density, supports) and simulate="
        raise ValueError(requirement("target", "be a Target", type(target).__name__, remedy))
    if simulate is not None and not callable(simulate):
        raise ValueError(requirement("simulate", "be a function", f"a {type(simulate).__name__}"))
    n, draws = check_positive_int("n", n), check_positive_int("draws", draws)
    if resume and checkpoint is None:
        raise ValueError(requirement("checkpoint", "be the file to resume from", "None"))
    climb, began = checked_settings(target, flow, dtype=dtype, **options), time.monotonic()
    settings: dict[str, Any] = {"flow": climb["flow"], "n": n, "draws": draws, "seed": str(seed)}
    settings |= {"dtype": climb["dtype"], **{k: str(v) for k, v in options.items()}}
    with precision(climb["dtype"]), one_blas_thread(), Progress(show=progress) as bar, counting():
        target = target.in_default_precision()
        simulator = Simulator.of(target, simulate)
        probe_key, run_key = split_on_host(as_key(seed), 2)
        truth, like = simulator(probe_key)
        shapes = {k: np.shape(v) for k, v in _ranks(like, truth, {k: v[None] for k, v in truth.items()}).items()}
        start = _State({k: np.zeros((n, *s), np.int64) for k, s in shapes.items()}, np.zeros(n, np.int64), np.zeros(n))
        kept = None
        if checkpoint is not None:
            told = {k: str(v) for k, v in describe_target(target).items()}
            kept = Checkpoint(checkpoint, {**settings, **told}, resume=resume, every=0.0)
        process = _Runs(simulator=simulator, flow=flow, n=n, n_draws=draws, settings=climb, failures=[], together={})
        limit = Limit.of(budget)
        bounds = {"progress": bar, "checkpoint": kept, "limit": limit}
        found = run(process, start, run_key, steps=n, name="calibration", quantity="k-hat", **bounds)
    done, state = len(found.history["elbo"]), found.state
    if process.failures and not (state.outcome[:done] != _FAILED).any():
        raise ValueError(process.failures[0])
    return Calibration(
        target.name,
        {k: v[:done] for k, v in state.ranks.items()},
        draws,
        state.outcome[:done],
        state.khat[:done],
        tuple(dict.fromkeys(process.failures)),
        {**settings, "seconds": round(time.monotonic() - began, 2)},
        package_versions(),
    )


@rows_jit
def _quantities_piece(target: Target, params: dict[str, Array]) -> dict[str, Array]:
    def one(params: dict[str, Array]) -> dict[str, Array]:
        derived = {} if target.deterministic is None else target.deterministic(params, target.data)
        return {**params, **derived, LOG_DENSITY: jnp.asarray(target.log_joint(params, target.data))}

    return target.each(one)(params)


def _quantities(target: Target, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    own = {k: np.asarray(params[k], jnp.result_type(float)) for k in target.names}
    return in_pieces(_quantities_piece(target), own, _PIECE)


def _ranks(target: Target, truth: Mapping[str, np.ndarray], draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Quantity -> how many draws are below the true value, its shape."""
    true = _quantities(target, {k: v[None] for k, v in truth.items()})
    others = _quantities(target, draws)
    derived = sorted(set(true) - {*target.names, LOG_DENSITY})
    return {k: np.sum(others[k] < true[k], axis=0) for k in (*target.names, *derived, LOG_DENSITY)}
