"""Optimisation of an objective: Adam, a warm-up, a cool-down, and no step that is not finite."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Count, Float, PRNGKeyArray, Scalar, Skeleton
from thalweg.fit._optimiser import init_optimiser, optimiser_step
from thalweg.objectives import AbstractObjective
from thalweg.run import AbstractJittedProcess, Status

_BAD_RUN = 20
"""So many bad steps in a row roll the fit back to the last good review."""
_MOST_ROLLBACKS = 6
_LOST_NATS, _LOST_SPREADS = 100.0, 20.0
"""A chunk whose median ELBO falls short of the best one's by both together has run off: it rolls back too."""
_HEAD, _DIP_NATS, _DIP_SPREADS = 5, 10.0, 4.0
"""As has one that falls so far short of the first few steps': too long steps from a good start."""
_REASONS = (Status.ALL_STEPS, Status.CONVERGED, Status.BUDGET)
"""Why a fit began to cool down, and so why it stopped."""


class FitState(NamedTuple):
    """The state of a fit: a skeleton and a flat vector, which is all that the optimiser sees.

    Attributes:
        skeleton: the distribution without its trainable numbers.
        vector: how far they have moved from where they began.
        optimiser: Adam's moments.
        n_bad: steps skipped so far because the loss or the gradient was not finite.
        bad_run: how many of the last steps were bad, in a row.
        damping: factor on the learning rate, halved at each rollback.
        n_rollbacks: how many there were.
        cooling: the step at which cooling down began, -1 before; how long it takes; which of the reasons it had.
        safe: (vector, optimiser) at the last review that found no bad run and no loss.
        warm_from: the step at which warming up began: the first, or that of the last rollback.
    """

    skeleton: Skeleton
    vector: Float[Array, " size"]
    optimiser: Any
    n_bad: Array
    bad_run: Array
    damping: Array
    n_rollbacks: Array
    cooling: Array
    safe: Any
    warm_from: Array

    @property
    def model(self) -> Any:
        """The distribution, as it is now."""
        return self.skeleton.on_host(self.vector)


class Fit(AbstractJittedProcess[FitState]):
    r"""Minimise an objective by Adam.

    The learning rate rises over the warm-up, stays, and once the objective has settled (its mean over the last window
    is no better than the one before it by more than the noise of their difference), or so much of the steps or of the
    time is used up, falls to 0 along a half cosine; then the fit stops. An objective that is annealed is judged, and
    the fit cools down, once it no longer changes. A step whose loss or gradient is not finite is
    skipped and counted; a run of them, or an objective that runs off, rolls the fit back, to warm up again to half the
    learning rate.

    Args:
        objective: what to minimise.
        learning_rate: at its highest.
        warm_up: steps.
        cool_share: share of all steps kept for cooling down.
        window: steps a window of the plateau rule; None never stops early.
        batch: given to the objective at every step.
        quick: whether there are so few steps that how long they compile matters more than how long they run.
    """

    objective: AbstractObjective
    learning_rate: Array
    warm_up: Array
    cool_share: float = eqx.field(static=True)
    window: int | None = eqx.field(static=True)
    batch: Any
    chunk: int = eqx.field(static=True)
    quick: bool = eqx.field(static=True)
    records: ClassVar[tuple[str, ...]] = ("elbo", "good")

    def __init__(
        self,
        objective: AbstractObjective,
        *,
        learning_rate: float = 1e-2,
        warm_up: int = 50,
        cool_share: float = 0.5,
        window: int | None = 300,
        batch: Any = None,
        chunk: int = 50,
        quick: bool = False,
    ) -> None:
        dtype = jnp.result_type(float)
        self.objective, self.batch = objective, batch
        self.learning_rate, self.warm_up = jnp.asarray(np.asarray(learning_rate, dtype)), jnp.asarray(np.int32(warm_up))
        self.cool_share, self.window, self.chunk, self.quick = cool_share, window, chunk, quick

    def init(self, model: Any) -> FitState:
        """The state before the first step; compiles nothing that depends on the model's size."""
        skeleton = Skeleton(model)
        vector = jnp.asarray(np.zeros(skeleton.size, jnp.result_type(float)))
        optimiser = init_optimiser(vector)
        zero = jnp.asarray(np.int32(0))
        one = jnp.asarray(np.ones((), jnp.result_type(float)))
        cooling = jnp.asarray(np.array([-1, 1, 0], np.int32))
        return FitState(skeleton, vector, optimiser, zero, zero, one, zero, cooling, (vector, optimiser), zero)

    def _rate(self, state: FitState, index: Array) -> Scalar:
        dtype = self.learning_rate.dtype
        warm = jnp.minimum(1, (index - state.warm_from + 1).astype(dtype) / self.warm_up.astype(dtype))
        start, length = state.cooling[0].astype(dtype), state.cooling[1].astype(dtype)
        share = jnp.clip((index.astype(dtype) - start) / length, 0, 1)
        cool = jnp.where(start < 0, 1, 0.5 * (1 + jnp.cos(jnp.pi * share)))
        return self.learning_rate * warm * cool * state.damping

    def step(self, state: FitState, key: PRNGKeyArray, index: Array) -> tuple[FitState, dict[str, Scalar]]:
        """One step of Adam; a bad one changes nothing but the counts."""

        def loss_of(vector: Array) -> tuple[Scalar, dict[str, Scalar]]:
            return self.objective.at(index)(state.skeleton(vector), key, self.batch)

        (loss, aux), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.vector)
        rate = self._rate(state, index)
        vector, optimiser, good = optimiser_step(gradient, state.optimiser, state.vector, rate, jnp.isfinite(loss))
        bad = (~good).astype(jnp.int32)
        state = state._replace(
            vector=vector,
            optimiser=optimiser,
            n_bad=state.n_bad + bad,
            bad_run=(state.bad_run + bad) * bad,
        )
        return state, {"elbo": aux["elbo"], "good": good}

    def evaluations(self, records: dict[str, np.ndarray]) -> Count:
        """One of each draw."""
        return Count(gradients=self.objective.evaluations * len(records["elbo"]))

    def review(
        self, state: FitState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[FitState, Status | None]:
        """Roll back after bad steps or far too low ones; cool down when the objective has settled; stop when cool."""
        done, change = len(history["elbo"]), self.objective.steps_of_change
        elbo = history["elbo"][change:]
        lost, slack = _shortfall(elbo, self.chunk)
        dip, noise = _dip(elbo, self.chunk)
        ran_off = lost > _LOST_NATS + _LOST_SPREADS * slack or dip > _DIP_NATS + _DIP_SPREADS * noise
        if int(state.bad_run) >= min(_BAD_RUN, self.chunk) or ran_off:
            return self._roll_back(state, done)
        if lost <= slack and dip <= noise:
            # what is on its way down already is no place to come back to
            state = state._replace(safe=(state.vector, state.optimiser))
        if self.is_cooling(state):
            start, length = (int(c) for c in state.cooling[:2])
            return state, (_REASONS[int(state.cooling[2])] if done >= start + length else None)
        length = self._cool_length(steps)
        settled = self.window is not None and _has_settled(elbo, self.window)
        if settled or hurry or done >= steps - length:
            reason = Status.CONVERGED if settled else Status.BUDGET if hurry else Status.ALL_STEPS
            state = self.cooled(state, done, steps, reason, hurry=hurry)
        return state, None

    def is_cooling(self, state: FitState) -> bool:
        """Whether it is on its way to stop."""
        return int(state.cooling[0]) >= 0

    def cooled(self, state: FitState, done: int, steps: int, reason: Status, *, hurry: bool = False) -> FitState:
        """The state that cools down from here, to stop for a reason; in a hurry, for half as long as it ran."""
        length = self._cool_length(steps)
        length = max(1, min(length, done // 2)) if hurry else min(length, max(steps - done, 1))
        return state._replace(cooling=jnp.asarray(np.array([done, length, _REASONS.index(reason)], np.int32)))

    def _cool_length(self, steps: int) -> int:
        return max(1, min(round(self.cool_share * steps), steps - self.objective.steps_of_change))

    def _roll_back(self, state: FitState, done: int) -> tuple[FitState, Status | None]:
        vector, optimiser = state.safe
        state = state._replace(
            vector=vector,
            optimiser=optimiser,
            bad_run=jnp.zeros_like(state.bad_run),
            damping=state.damping / 2,
            n_rollbacks=state.n_rollbacks + 1,
            warm_from=jnp.asarray(np.int32(done)),
        )
        return state, (Status.DIVERGED if int(state.n_rollbacks) >= _MOST_ROLLBACKS else None)


def _dip(elbo: np.ndarray, chunk: int) -> tuple[float, float]:
    """(by how much the last chunk's median ELBO falls short of the first steps', their interquartile range)."""
    head, last = (part[np.isfinite(part)] for part in (elbo[:_HEAD], elbo[-chunk:]))
    if len(head) < _HEAD or not len(last):
        return 0.0, 0.0
    low, middle, high = np.quantile(head, [0.25, 0.5, 0.75])
    return float(middle - np.median(last)), float(high - low)


def _shortfall(elbo: np.ndarray, chunk: int) -> tuple[float, float]:
    """(by how much the last chunk's median ELBO falls short of the best chunk's, the best's interquartile range)."""
    whole = elbo[len(elbo) % chunk :].reshape(-1, chunk)
    whole = whole[np.isfinite(whole).any(axis=1)]
    if len(whole) < 2:
        return 0.0, 0.0
    low, middle, high = np.nanquantile(np.where(np.isfinite(whole), whole, np.nan), [0.25, 0.5, 0.75], axis=1)
    best = int(np.argmax(middle))
    return float(middle[best] - middle[-1]), float(high[best] - low[best])


def _has_settled(elbo: np.ndarray, window: int) -> bool:
    """Whether the mean over the last window is no better than the one before it by more than its noise."""
    if len(elbo) < 2 * window:
        return False
    before, after = elbo[-2 * window : -window], elbo[-window:]
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if min(len(before), len(after)) < window // 2:
        return False
    # the median is not carried off by a few wild draws
    gain = np.median(after) - np.median(before)
    noise = 1.2533 * np.hypot(np.std(before), np.std(after)) / np.sqrt(window)
    return bool(gain < noise)
