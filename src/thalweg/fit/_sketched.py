"""A Gaussian of many coordinates: first each by itself, then their covariance, a random subspace at a time."""

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import numpy as np

from thalweg._core import PRNGKeyArray, in_precision, key_words
from thalweg.fit._gaussian import cool_down, steps_of
from thalweg.run import AbstractProcess, Status
from thalweg.targets import Target, value_and_score_of_rows

_LOG_2PI = math.log(2 * math.pi)
_DECAY, _DECAY_OF_SQUARES, _TINY = 0.9, 0.99, 1e-12
LEAST_CURVATURE, FARTHEST, _LOOK, _FAR = 0.2, 2.0, 1.5, 1.0
"""Of a step, at most so flat; the longest step of a coordinate, in sd; how far along the last step is looked, in sd, if
that was longer than the last: along a short one, which is noise, the curvature at the mean is not that of the draws."""
FEWEST, NARROWER = 0.9, 0.7
"""The share of draws where there must be density; what a Gaussian is narrowed by that has too few."""
_LOWEST = 30.0
"""A draw whose log density is lower than the median by so many interquartile ranges is none of the bulk."""
DROP, DROP_IN_ERRORS = 5.0, 6.0
"""Nats, and standard errors, by which the ELBO may fall before a step is taken back."""


class MeanFieldState(NamedTuple):
    """The state of a mean-field fit.

    Attributes:
        loc: means, (d,).
        log_sd: logarithms of the standard deviations, (d,).
        moments: Adam's, of both gradients, (2, 2 d).
    """

    loc: np.ndarray
    log_sd: np.ndarray
    moments: np.ndarray


class MeanFieldFit(AbstractProcess[MeanFieldState]):
    r"""A Gaussian of independent coordinates by Adam on the ELBO: robust where a fuller one would not know the way.

    In coordinates z = (u - m) / sd the gradients are E[s] / sd and E[s z] + 1, s = sd grad log p(u). Steps grow with
    the sd where that exceeds 1, and shrink over the second half.

    Source: Kucukelbir et al. 2017 (ADVI).

    Args:
        target: the log density.
        steps: so many.
        n_pairs: antithetic pairs of draws a step.
        learning_rate: of Adam.
    """

    target: Target
    steps: int = eqx.field(static=True)
    n_pairs: int = eqx.field(static=True)
    learning_rate: float = eqx.field(static=True)
    chunk: ClassVar[int] = 20

    def __init__(self, target: Target, *, steps: int = 300, n_pairs: int = 64, learning_rate: float = 0.1) -> None:
        self.target, self.steps, self.n_pairs, self.learning_rate = target, steps, n_pairs, learning_rate

    def init(self, loc: np.ndarray, sd: float) -> MeanFieldState:
        """The state before the first step, at `loc`, (d,), all as wide."""
        d = len(loc)
        return MeanFieldState(np.array(loc, float), np.full(d, math.log(sd)), np.zeros((2, 2 * d)))

    def advance(
        self, state: MeanFieldState, key: PRNGKeyArray, first: int, n: int
    ) -> tuple[MeanFieldState, dict[str, np.ndarray]]:
        """Steps; draws at which the density is not finite are left out."""
        return steps_of(self._step, state, key, first, n)

    def _step(self, state: MeanFieldState, key: PRNGKeyArray, index: int) -> tuple[MeanFieldState, float, bool]:
        loc, log_sd, moments = state
        z, log_p, score = seen(self.target, key, index, loc, self.n_pairs, lambda z: z * np.exp(log_sd))
        good = np.isfinite(log_p) & np.isfinite(score).all(axis=1)
        if not good.any():
            return state._replace(log_sd=log_sd - math.log(2)), -np.inf, False
        z, s = z[good], score[good] * np.exp(log_sd)
        gradient = np.concatenate([s.mean(0) / np.exp(log_sd), (s * z).mean(0) + 1])
        mean = _DECAY * moments[0] + (1 - _DECAY) * gradient
        square = _DECAY_OF_SQUARES * moments[1] + (1 - _DECAY_OF_SQUARES) * gradient**2
        scale = np.sqrt(square / (1 - _DECAY_OF_SQUARES ** (index + 1))) + _TINY
        step = self.learning_rate * min(1.0, max(0.02, 2 * (1 - index / self.steps)))
        by_loc, by_sd = np.split(step * mean / (1 - _DECAY ** (index + 1)) / scale, 2)
        new = MeanFieldState(loc + by_loc * np.maximum(1.0, np.exp(log_sd)), log_sd + by_sd, np.stack([mean, square]))
        return new, float((log_p[good] + 0.5 * (z**2).sum(1)).mean() + log_sd.sum() + 0.5 * len(loc) * _LOG_2PI), True

    def review(
        self, state: MeanFieldState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[MeanFieldState, Status | None]:
        """Until all steps are taken."""
        return state, Status.CONVERGED if len(history["elbo"]) >= self.steps or hurry else None


class Known(NamedTuple):
    """A Gaussian that was looked at.

    Attributes:
        loc: its mean, (d,).
        factor: of its covariance, (d, d).
        log_det: of the factor.
        elbo: its ELBO.
        slack: by how much that of the next one may be lower.
    """

    loc: np.ndarray
    factor: np.ndarray
    log_det: np.ndarray
    elbo: np.ndarray
    slack: np.ndarray


class SketchedState(NamedTuple):
    """The state of a sketched fit.

    Attributes:
        loc: the mean, (d,).
        factor: of the covariance, (d, d), not triangular.
        log_det: of the factor.
        way: in the Gaussian's own coordinates, where its mean last went, (d,).
        known: where the ELBO was seen last.
        trust: how far steps go, 1 at most.
        cooling: the step at which cooling down began, -1 before.
    """

    loc: np.ndarray
    factor: np.ndarray
    log_det: np.ndarray
    way: np.ndarray
    known: Known
    trust: np.ndarray
    cooling: np.ndarray

    @property
    def is_known(self) -> bool:
        """Whether it stands where the ELBO was seen last."""
        return bool(self.log_det == self.known.log_det) and np.array_equal(self.loc, self.known.loc)

    @property
    def scale_tril(self) -> np.ndarray:
        """The covariance's Cholesky factor, (d, d)."""
        _, upper = np.linalg.qr(self.factor.T)
        return (upper * np.where(np.diagonal(upper) < 0, -1.0, 1.0)[:, None]).T


class SketchedFit(AbstractProcess[SketchedState]):
    r"""Natural-gradient variational inference with N(m, L L') for d of which d^2 draws would be too many.

    As `GaussianFit`, but a step learns the curvature along the k directions it draws, no more. In the coordinates of
    the present Gaussian let the k columns of Q span them and H be the mean of -Hess log p there; the gradients of
    antithetic draws give H Q without noise where p is Gaussian. Of all covariances that agree with H on Q the nearest
    is taken (block BFGS): L <- L (I - Q G^-1 (H Q)' + Q G^-1/2 Q'), G = Q' H Q, with H damped, (1 - rho) I + rho H; and
    then the mean's natural gradient, clipped. Among the directions is where the mean last went: along it a step is
    Newton's. What lowers the ELBO beyond its noise is taken back.

    It costs O(k d^2) a step. Source: Gower, Goldfarb and Richtarik 2016 (block BFGS from sketches).

    Args:
        target: the log density.
        n_pairs: antithetic pairs of draws a step, k; at most half of d.
        rate: rho.
        cool_steps: steps of cooling down.
    """

    target: Target
    n_pairs: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    cool_steps: int = eqx.field(static=True)
    chunk: ClassVar[int] = 20

    def __init__(self, target: Target, *, n_pairs: int = 256, rate: float = 0.5, cool_steps: int = 60) -> None:
        self.target, self.rate, self.cool_steps = target, rate, cool_steps
        self.n_pairs = max(1, min(n_pairs, target.size // 2))

    def init(self, loc: np.ndarray, factor: np.ndarray) -> SketchedState:
        """The state before the first step: N(loc, factor factor')."""
        loc, factor = np.array(loc, float), np.array(factor, float)
        log_det = np.asarray(np.linalg.slogdet(factor)[1])
        known = Known(loc, factor, log_det, np.array(-np.inf), np.array(DROP))
        return SketchedState(loc, factor, log_det, np.zeros(len(loc)), known, np.array(1.0), np.array(-1))

    def advance(
        self, state: SketchedState, key: PRNGKeyArray, first: int, n: int
    ) -> tuple[SketchedState, dict[str, np.ndarray]]:
        """Steps."""
        return steps_of(self._step, state, key, first, n)

    def _step(self, state: SketchedState, key: PRNGKeyArray, index: int) -> tuple[SketchedState, float, bool]:
        since = max(0, index - int(state.cooling)) if state.cooling >= 0 else 0
        rate = float(state.trust) * self.rate * max(0.02, 1 - since / self.cool_steps) ** 2
        d, n = self.target.size, self.n_pairs
        further = state.way[None] if state.way.any() else np.empty((0, d))
        z, log_p, score = seen(self.target, key, index, state.loc, n, lambda z: z @ state.factor.T, further=further)
        finite = np.logical_and(*np.split(usual(log_p + 0.5 * (z**2).sum(1)) & np.isfinite(score).all(axis=1), 2))
        drawn = np.flatnonzero(finite[:n])
        elbo, slack = -np.inf, DROP
        if len(drawn) >= FEWEST * n:
            both = np.concatenate([drawn, drawn + len(finite)])
            terms = log_p[both] + 0.5 * (z[both] ** 2).sum(1)
            elbo = float(terms.mean() + state.log_det + 0.5 * d * _LOG_2PI)
            slack = max(DROP, DROP_IN_ERRORS * float(terms.std()) / math.sqrt(len(terms)))
        if elbo == -np.inf or (elbo < state.known.elbo - state.known.slack and not state.is_known):
            return _taken_back(state), float(state.known.elbo), False
        kept = np.flatnonzero(finite)
        k, z = len(kept), z[kept]
        s = score[np.concatenate([kept, kept + len(finite)])] @ state.factor
        mean = 0.5 * (s[: len(drawn)] + s[k : k + len(drawn)]).mean(0)
        basis, inner = np.linalg.qr(z.T)
        curved = np.linalg.solve(inner.T, (s[k:] - s[:k]) / 2).T
        along = basis.T @ curved
        size, turn = np.linalg.eigh((1 - rate) * np.eye(k) + 0.5 * rate * (along + along.T))
        size = np.maximum(size, LEAST_CURVATURE)
        beside = rate * (curved - basis @ along)
        # L W, W = I + Q change: what is new has rank k
        change = (turn / np.sqrt(size)) @ turn.T @ basis.T - basis.T - (turn / size) @ turn.T @ beside.T
        factor = state.factor + (state.factor @ basis) @ change
        shift = np.clip(mean + change.T @ (basis.T @ mean), -FARTHEST, FARTHEST)
        length = float(np.linalg.norm(shift)) + 1e-30
        shift = shift * min(1.0, math.sqrt(d) / (rate * length))
        length = float(np.linalg.norm(shift))
        new = SketchedState(
            state.loc + rate * (factor @ shift),
            factor,
            np.asarray(state.log_det - 0.5 * np.log(size).sum()),
            _LOOK * shift / length if length > _FAR else np.zeros(d),
            Known(state.loc, state.factor, state.log_det, np.array(elbo), np.array(slack)),
            np.asarray(min(1.0, 2 * float(state.trust))),
            state.cooling,
        )
        return new, elbo, True

    def review(
        self, state: SketchedState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[SketchedState, Status | None]:
        """Cool down once the ELBO has settled; stop when cool."""
        return cool_down(state, history["elbo"], self.chunk, self.cool_steps, now=hurry, steps=steps)


def usual(terms: np.ndarray) -> np.ndarray:
    """Which are finite and not so low that one would count for more than all others."""
    finite = np.isfinite(terms)
    if not finite.any():
        return finite
    low, middle, high = np.quantile(terms[finite], [0.25, 0.5, 0.75])
    return finite & (np.where(finite, terms, -np.inf) >= middle - _LOWEST * (high - low + 1))


def _taken_back(state: SketchedState) -> SketchedState:
    """Where the ELBO was seen last, to go on with less trust; narrower, where that is the state itself."""
    known = state.known
    if state.is_known:
        log_det = np.asarray(known.log_det + len(known.loc) * math.log(NARROWER))
        known = known._replace(factor=known.factor * NARROWER, log_det=log_det, elbo=np.array(-np.inf))
    back = {"loc": known.loc, "factor": known.factor, "log_det": known.log_det, "known": known}
    return state._replace(**back, way=np.zeros(len(known.loc)), trust=np.asarray(state.trust / 4))


def seen(
    target: Target,
    key: PRNGKeyArray,
    index: int,
    loc: np.ndarray,
    n: int,
    spread: Callable[[np.ndarray], np.ndarray],
    further: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(standard draws and their negatives, log densities, scores): n pairs of a step, and `further` ones."""
    z = np.random.default_rng([*key_words(key), index]).standard_normal((n, len(loc)))
    z = z if further is None else np.concatenate([z, further])
    z = np.concatenate([z, -z])
    with np.errstate(over="ignore"):
        rows = in_precision(loc + spread(z))
    log_p, score = value_and_score_of_rows(target, rows)
    return z, log_p.astype(float), score.astype(float)
