"""Maximum likelihood of a flow on draws, stopped by what draws that it does not see say."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Float, PRNGKeyArray, Scalar, as_key, in_pieces, quick_rows_jit
from thalweg.distributions import AbstractAuxiliaryDistribution
from thalweg.fit._fit import Fit, FitState
from thalweg.objectives import ForwardKL
from thalweg.run import AbstractJittedProcess, Status

_PIECE, _BOUND_BY = 1000, 16
"""Held-out rows a call; draws a bound of an auxiliary flow's density there."""
_MEMORY = 0.99
"""Of the running average of the parameters, a step."""


class DensityState(NamedTuple):
    """The state of such a fit.

    Attributes:
        fit: the optimiser's.
        average: of the vectors of the last hundred steps or so.
        best: the average with the highest held-out log density.
        value: that, one number a held-out row.
        idle: reviews since it last grew beyond its noise.
    """

    fit: FitState
    average: Float[Array, " size"]
    best: Float[Array, " size"]
    value: Float[Array, " m"]
    idle: Array

    @property
    def model(self) -> Any:
        """The distribution at its best."""
        return self.fit.skeleton.on_host(self.best)


@quick_rows_jit
def _score_rows(skeleton: Any, vector: Array, key: PRNGKeyArray, rows: Array) -> Array:
    flow = skeleton(vector)
    if isinstance(flow, AbstractAuxiliaryDistribution):
        return flow.log_prob_bounds(key, rows, _BOUND_BY).lower
    return flow.log_prob(rows)


def _count(n: int) -> Array:
    return jnp.asarray(np.int32(n))


class DensityFit(AbstractJittedProcess[DensityState]):
    r"""Maximise $\sum_i \log q(x_i)$ over minibatches; keep the average that held-out rows find most likely.

    Once their log density has not grown beyond its noise for `patience` reviews, the fit goes back to its best and
    cools down from there: a flow that has begun to learn its rows by heart stops.

    Args:
        objective: of the rows that it learns from.
        held_out: rows that it is judged by, (m, d).
        learning_rate: Adam's, at its highest.
        patience: reviews.
        chunk: steps between two.
    """

    fit: Fit
    held_out: Array
    patience: int = eqx.field(static=True)
    chunk: int = eqx.field(static=True)
    records: ClassVar[tuple[str, ...]] = ("elbo", "good")
    quick: ClassVar[bool] = False

    def __init__(
        self, objective: ForwardKL, held_out: Array, *, learning_rate: float, patience: int = 10, chunk: int = 100
    ) -> None:
        self.fit = Fit(objective, learning_rate=learning_rate, cool_share=0.3, window=None, chunk=chunk)
        self.held_out, self.patience, self.chunk = held_out, patience, chunk

    def init(self, flow: Any) -> DensityState:
        """The state before the first step."""
        fit = self.fit.init(flow)
        return DensityState(fit, fit.vector, fit.vector, self._judge(fit, fit.vector), _count(0))

    def _judge(self, fit: FitState, vector: Array) -> Array:
        """The log density of each held-out row; of an auxiliary flow its bound, by the same draws every time."""
        return jnp.asarray(in_pieces(_score_rows(fit.skeleton, vector, as_key(0)), self.held_out, _PIECE))

    def step(self, state: DensityState, key: PRNGKeyArray, index: Array) -> tuple[DensityState, dict[str, Scalar]]:
        """One of Adam, and of the average, which remembers more as there is more to remember."""
        fit, record = self.fit.step(state.fit, key, index)
        steps = index.astype(fit.vector.dtype)
        memory = jnp.minimum(_MEMORY, (1 + steps) / (10 + steps))
        return state._replace(fit=fit, average=memory * state.average + (1 - memory) * fit.vector), record

    def review(
        self, state: DensityState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[DensityState, Status | None]:
        """Judge; cool down from the best where nothing has grown for long; stop when cool."""
        fit, status = self.fit.review(state.fit, history, steps=steps, hurry=hurry)
        value = self._judge(fit, state.average)
        gain = np.asarray(value, float) - np.asarray(state.value, float)
        idle = 0 if gain.mean() > gain.std() / np.sqrt(len(gain)) else int(state.idle) + 1
        state = state._replace(fit=fit, idle=_count(idle))
        if gain.mean() > 0:
            state = state._replace(best=state.average, value=value)
        if status is None and idle >= self.patience and not self.fit.is_cooling(fit):
            back = fit._replace(vector=state.best)
            cool = self.fit.cooled(back, len(history["elbo"]), steps, Status.CONVERGED)
            state = state._replace(fit=cool, average=state.best)
        return state, status
