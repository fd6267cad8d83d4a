"""Particles led from a wide Student-t to the target through a schedule that finds itself: what modes there are."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import numpy as np

from thalweg._core import PRNGKeyArray, in_precision, key_words, numpy_rng, split_on_host
from thalweg.ladder._fits import Budget
from thalweg.ladder._modes import Fitted
from thalweg.ladder._scout import send_scouts
from thalweg.posterior import metric_of
from thalweg.run import AbstractProcess, RunResult, Status, run
from thalweg.targets import Target, log_density_of_rows, value_and_score_of_rows

_PARTICLES, _MOST_STEPS = 4000, 200
_MOST_MOVED, _MOST_NUMBERS = 15, 10_000_000
"""How often they are moved on at the target; fewer times where they would hold more numbers."""
_DEGREES, _WIDER = 5.0, 2.0
"""Of the Student-t that particles begin at; by how much its variances exceed those of the known places together."""
_SCOUTS, _LOWER, _LOWER_EACH = 128, 20.0, 2.0
"""Nats, and nats a dimension, below the modes at which a scout's end is still a place to begin at."""
_KEPT = 0.7
"""Effective share of the particles after a step of the schedule."""
_LEAST_PART = 1e-30
"""Of the way, a step."""
_MOVES, _MOVES_THERE, _LEAPS, _FIRST, _ACCEPTANCE = 6, 2, 5, 0.5, 0.7


class TemperedState(NamedTuple):
    """Particles on their way.

    Attributes:
        u: (n, d).
        log_p: the target's log density there, (n,).
        score: its gradient, (n, d).
        beta: how much of the target counts by now, 0 to 1.
        step: of the leapfrogs, in the particles' own units.
    """

    u: np.ndarray
    log_p: np.ndarray
    score: np.ndarray
    beta: np.ndarray
    step: np.ndarray


class TemperedParticles(AbstractProcess[TemperedState]):
    r"""Sequential Monte Carlo through the densities $r^{1-\beta} p^{\beta}$, r a Student-t on R^d.

    Each step takes as large a part of the way as leaves 70 % of the particles effective, draws them anew by their
    weights, and moves each by Hamiltonian trajectories, preconditioned by the particles' own covariance. All that is
    compiled is what the Gaussian's fit compiles. Sources: Del Moral et al. 2006; Jasra et al. 2011 for the schedule.

    Args:
        target: the log density.
        loc: of the Student-t, (d,).
        scale_tril: its Cholesky factor, (d, d).
    """

    target: Target
    loc: np.ndarray
    scale_tril: np.ndarray
    chunk: int = eqx.field(static=True, default=1)
    records: ClassVar[tuple[str, ...]] = ("elbo",)

    def init(self, key: PRNGKeyArray, n: int = _PARTICLES) -> TemperedState:
        """Particles of the Student-t."""
        rng = np.random.default_rng([*key_words(key)])
        z = rng.standard_normal((n, len(self.loc))) * np.sqrt(_DEGREES / rng.chisquare(_DEGREES, (n, 1)))
        u = self.loc + z @ self.scale_tril.T
        return TemperedState(u, *self._look(u), np.array(0.0), np.array(_FIRST))

    def advance(
        self, state: TemperedState, key: PRNGKeyArray, first: int, n: int
    ) -> tuple[TemperedState, dict[str, np.ndarray]]:
        """So many steps of the schedule."""
        told = []
        for i in range(n):
            state = self._advance(state, np.random.default_rng([*key_words(key), first + i]))
            told.append(float(state.beta))
        return state, {"elbo": np.array(told)}

    def review(
        self, state: TemperedState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[TemperedState, Status | None]:
        """Stop at the target."""
        return state, Status.CONVERGED if state.beta >= 1 else None

    def _advance(self, state: TemperedState, rng: np.random.Generator) -> TemperedState:
        gain = np.where(np.isfinite(state.log_p), state.log_p - self._base(state.u)[0], -np.inf)
        part = _next_part(gain, 1 - float(state.beta))
        weights = _weights(part * gain)
        # systematic: each particle as often as its weight says, to within one
        n = len(weights)
        chosen = np.minimum(np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n), n - 1)
        beta = min(1.0, float(state.beta) + part)
        at = state._replace(u=state.u[chosen], log_p=state.log_p[chosen], score=state.score[chosen])
        return self._moved(at._replace(beta=np.array(beta)), rng, _MOVES if part else _MOVES_THERE)

    def _moved(self, state: TemperedState, rng: np.random.Generator, moves: int) -> TemperedState:
        u, beta, step = state.u, float(state.beta), float(state.step)
        metric = metric_of(u, np.full(len(u), 1 / len(u)))
        held = [u, state.log_p, state.score]

        def tempered(u: np.ndarray, log_p: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_r, slope = self._base(u)
            return beta * log_p + (1 - beta) * log_r, (beta * score + (1 - beta) * slope) @ metric

        with np.errstate(all="ignore"):  # a wild proposal is refused
            for _ in range(moves):
                before, slope = tempered(*held)
                start = momentum = rng.standard_normal(u.shape)
                new, length = held, step * rng.uniform(0.5, 1.5)
                for _ in range(_LEAPS):
                    momentum = momentum + 0.5 * length * slope
                    x = new[0] + length * momentum @ metric.T
                    new = [x, *self._look(x)]
                    after, slope = tempered(*new)
                    momentum = momentum + 0.5 * length * slope
                log_chance = after - before + 0.5 * ((start**2).sum(1) - (momentum**2).sum(1))
                log_chance = np.where(np.isfinite(log_chance) & np.isfinite(slope).all(1), log_chance, -np.inf)
                taken = np.log(rng.random(len(u))) < log_chance
                held = [np.where(taken.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, held, strict=True)]
                step *= float(np.exp(np.exp(np.minimum(log_chance, 0)).mean() - _ACCEPTANCE))
        return state._replace(u=held[0], log_p=held[1], score=held[2], step=np.array(step))

    def _look(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_p, score = value_and_score_of_rows(self.target, in_precision(u))
        return log_p.astype(float), score.astype(float)

    def _base(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(log r up to a constant, its gradient) at rows."""
        d = len(self.loc)
        z = np.linalg.solve(self.scale_tril, (u - self.loc).T).T
        square = (z**2).sum(1)
        slope = -(_DEGREES + d) * z / (_DEGREES + square)[:, None]
        return -0.5 * (_DEGREES + d) * np.log1p(square / _DEGREES), np.linalg.solve(self.scale_tril.T, slope.T).T


def _weights(log_weights: np.ndarray) -> np.ndarray:
    w = np.exp(log_weights - log_weights.max())
    return w / w.sum()


def _next_part(gain: np.ndarray, left: float) -> float:
    """The part of the way that leaves the share of the particles effective, at most what is left of it."""
    from scipy.optimize import brentq  # 0.1 s, which `import thalweg` shall not cost

    gain = gain[np.isfinite(gain)]

    def kept(part: float) -> float:
        return 1 / (len(gain) * (_weights(part * gain) ** 2).sum()) - _KEPT

    if kept(left) >= 0:
        return left
    if kept(_LEAST_PART) <= 0:
        return _LEAST_PART
    # in its logarithm: from where the log density is -1e12 the first part of the way is one in 1e12
    ends = math.log(_LEAST_PART), math.log(left)
    return math.exp(brentq(lambda log_part: kept(math.exp(log_part)), *ends, xtol=1e-3))  # pyright: ignore[reportArgumentType]


def _all_over(target: Target, modes: Fitted, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(mean, Cholesky factor) of a Gaussian over all known modes, and where scouts end that are not far below them."""
    locs, d = np.stack([g.loc for g in modes.gaussians]), target.size
    scouts = send_scouts(target, rng.uniform(-2, 2, (_SCOUTS, d)))
    least = log_density_of_rows(target, locs).max() - _LOWER - _LOWER_EACH * d
    places = np.concatenate([locs, scouts.ends[np.isfinite(scouts.log_p) & (scouts.log_p > least)]])
    within = np.mean([g.covariance for g in modes.gaussians], axis=0)
    between = (places - places.mean(0)).T @ (places - places.mean(0)) / len(places)
    return places.mean(0), np.linalg.cholesky(_WIDER * (within + between))


def temper(target: Target, modes: Fitted, key: PRNGKeyArray, budget: Budget) -> tuple[np.ndarray, str]:
    """(particles of the target at several times, (n, d); a sentence).

    They begin at a Student-t over all known places, whatever each holds.
    """
    loc, scale_tril = _all_over(target, modes, numpy_rng(key))
    process = TemperedParticles(target=target, loc=loc, scale_tril=scale_tril)
    most = min(_MOST_MOVED, _MOST_NUMBERS // (_PARTICLES * target.size))
    keys = split_on_host(key, 1 + most)

    def go(state: TemperedState, name: str, key: PRNGKeyArray, steps: int) -> RunResult:
        bounds = {"progress": budget.progress, "checkpoint": budget.checkpoint, "limit": budget.limit}
        return run(process, state, key, steps=steps, name=name, quantity="exponent", **bounds)

    result = go(process.init(key), "particles", keys[0], _MOST_STEPS)
    beta, steps = float(result.state.beta), len(result.history["elbo"])
    sentence = f"{len(result.state.u):,} particles led from a wide Student-t to the target in {steps} steps"
    if beta < 1:
        # a flow may learn from them all the same: they are too wide, not too narrow
        return result.state.u, f"{sentence}, which ended on the way (exponent {beta:.2g})"
    # so many that a flow learns the target, not them
    u = [result.state.u]
    for i, own in enumerate(keys[1:]):
        if budget.is_over:
            break
        result = go(result.state, f"particles, moved {i + 1}", own, 1)
        u.append(result.state.u)
    return np.concatenate(u), f"{sentence}, and moved {len(u) - 1} times"
