"""A full-rank Gaussian by natural-gradient ascent of the ELBO, from several starts at once."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import numpy as np

from thalweg._core import PRNGKeyArray, in_precision, key_words
from thalweg.run import AbstractProcess, Status
from thalweg.targets import Stack, Target, value_and_score_of_rows

_NORMAL_MAD = 1.4826
"""The sd of a normal by its median distance from the middle."""


class GaussianState(NamedTuple):
    """The state of a Gaussian fit from k starts, in double precision.

    Attributes:
        loc: means, (k, d).
        scale_tril: Cholesky factors of the covariances, (k, d, d).
        cooling: the step at which cooling down began, -1 before.
        n_bad: bad steps so far.
    """

    loc: np.ndarray
    scale_tril: np.ndarray
    cooling: np.ndarray
    n_bad: np.ndarray


class GaussianFit(AbstractProcess[GaussianState]):
    r"""Natural-gradient variational inference with N(m, L L').

    In the coordinates z of the present Gaussian, u = m + L z, let s = L' grad log p(u) + z, which vanishes where the
    fit is exact. With G = E[s z'], made symmetric, the step is m += rho L E[s] and covariance L (I - rho G)^-1 L':
    one step of Newton's method where p is Gaussian, and with no noise at the end. Both parts are clipped in norm, the
    mean's step from every other start by Newton's too (what is narrow wants care, what is far off wants boldness), and
    rho falls while cooling down.

    The log density and its gradient are all that is compiled; the d x d algebra beside it is NumPy's, since XLA takes a
    second to compile it and no less time to run it.

    Source: Khan and Rue 2023, section 4 (the Bayesian learning rule for Gaussians), the Hessian by Stein's identity.

    Args:
        target: the log density; a `Stack` of them is fitted at once, each from as many starts, and the ELBO that is
            recorded and must settle is the sum of their best ones.
        n_pairs: antithetic pairs of draws a step.
        rate: rho.
        cool_steps: steps of cooling down.
        all_careful: take no bold starts: where all of them are uphill of everything near already.
    """

    target: Target | Stack
    n_pairs: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    cool_steps: int = eqx.field(static=True)
    all_careful: bool = eqx.field(static=True)
    chunk: ClassVar[int] = 20

    def __init__(
        self,
        target: Target | Stack,
        *,
        n_pairs: int | None = None,
        rate: float = 0.5,
        cool_steps: int = 60,
        all_careful: bool = False,
    ) -> None:
        self.target, self.rate, self.cool_steps, self.all_careful = target, rate, cool_steps, all_careful
        self.n_pairs = 32 + target.size if n_pairs is None else n_pairs

    @property
    def n_sets(self) -> int:
        """How many targets are fitted at once."""
        return len(self.target) if isinstance(self.target, Stack) else 1

    def init(self, starts: Any, scale_tril: Any = None, widest: float | None = None) -> GaussianState:
        """The state before the first step: Gaussians at `starts`, (k, d); every other one is careful.

        They are narrow, but for the first two where `scale_tril`, (d, d), says how wide they are, and the last where
        `widest` gives its sd.
        """
        loc = np.array(starts, float)
        k, d = loc.shape
        tril = np.tile(0.1 * np.eye(d), (k, 1, 1))
        if scale_tril is not None:
            tril[:2] = scale_tril
        if widest is not None:
            tril[-1] = widest * np.eye(d)
        return GaussianState(loc, tril, np.array(-1), np.array(0))

    def advance(
        self, state: GaussianState, key: PRNGKeyArray, first: int, n: int
    ) -> tuple[GaussianState, dict[str, np.ndarray]]:
        """Steps from every start; a start's bad step narrows its Gaussian instead."""
        return steps_of(self._step, state, key, first, n)

    def _step(self, state: GaussianState, key: PRNGKeyArray, index: int) -> tuple[GaussianState, float, bool]:
        since = max(0, index - int(state.cooling)) if state.cooling >= 0 else 0
        rate = self.rate * max(0.02, 1 - since / self.cool_steps) ** 2
        z = np.random.default_rng([*key_words(key), index]).standard_normal((self.n_pairs, state.loc.shape[1]))
        z = np.concatenate([z, -z])
        u = state.loc[:, None] + z @ state.scale_tril.swapaxes(1, 2)
        with np.errstate(over="ignore"):  # a start that runs off is told of by what comes of it
            flat = in_precision(u.reshape(-1, u.shape[2]))
        log_p, score = value_and_score_of_rows(self.target, flat)
        log_p, score = log_p.astype(float).reshape(u.shape[:2]), score.astype(float).reshape(u.shape)
        careful = np.ones(len(u), bool) if self.all_careful else np.arange(len(u)) % (len(u) // self.n_sets) % 2 == 0
        loc, tril, good = _moved(state.loc, state.scale_tril, z, score, rate, careful)
        good &= np.isfinite(log_p).all(axis=1)
        elbo = np.where(good, _elbo(log_p, z, state.scale_tril), -np.inf)
        state = state._replace(
            loc=np.where(good[:, None], loc, state.loc),
            scale_tril=np.where(good[:, None, None], tril, state.scale_tril / 2),
            n_bad=np.asarray(state.n_bad + (~good).sum()),
        )
        best = elbo.reshape(self.n_sets, -1).max(axis=1)
        return state, float(best.sum()), bool(np.isfinite(best).any())

    def review(
        self, state: GaussianState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[GaussianState, Status | None]:
        """Cool down once the best ELBO has settled; stop when cool."""
        return cool_down(state, history["elbo"], self.chunk, self.cool_steps, now=hurry, steps=steps)


def _elbo(log_p: np.ndarray, z: np.ndarray, tril: np.ndarray) -> np.ndarray:
    """Of each start, (k,), from its (k, n) log densities."""
    log_q = -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
    with np.errstate(invalid="ignore"):  # of starts whose step was bad
        return (log_p - log_q).mean(1) + np.log(np.diagonal(tril, axis1=1, axis2=2)).sum(1)


def _moved(
    loc: np.ndarray, tril: np.ndarray, z: np.ndarray, score: np.ndarray, rate: float, careful: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(means, Cholesky factors, whether the step could be taken) of k starts after one step."""
    n, d = z.shape
    with np.errstate(all="ignore"):
        s = score @ tril + z
        mean, gram = s.mean(1), s.swapaxes(1, 2) @ z / n
        gram = 0.5 * (gram + gram.swapaxes(1, 2))
        good = np.isfinite(mean).all(1) & np.isfinite(gram).all((1, 2))
        mean, gram = np.where(good[:, None], mean, 0), np.where(good[:, None, None], gram, 0)
        # along the mean's own direction the curvature is known: no step goes beyond Newton's
        length = np.linalg.norm(mean, axis=1) + 1e-30
        way = mean / length[:, None]
        curvature = 1 + careful * np.maximum(0.0, -(way * (gram @ way[..., None])[..., 0]).sum(1))
        slowing = np.minimum(1.0, math.sqrt(d) * curvature / (rate * length))
        shift = (rate * slowing / curvature)[:, None] * mean
        largest = _largest_eigenvalues(gram)
        # a Gaussian that is still far from where it is going must not shrink on the way, or it never arrives
        slowing = np.where((largest < 0) & careful, slowing, 1.0)
        # 0.8 leaves room for the eigenvalue's error
        step = rate * slowing * np.minimum(1.0, 0.8 / (rate * np.abs(largest) + 1e-12))
        # I - rho G = R R' with R upper triangular, so that R'^-1 is lower: the new factor is L R'^-1
        lower, definite = _choleskys((np.eye(d) - step[:, None, None] * gram)[:, ::-1, ::-1])
        # NumPy's solver, not SciPy's triangular one: two thread pools for one job take 100x as long
        new = np.tril(np.linalg.solve(lower[:, ::-1, ::-1], tril.swapaxes(1, 2)).swapaxes(1, 2))
        loc = loc + (tril @ shift[..., None])[..., 0]
    good &= definite & np.isfinite(loc).all(1) & np.isfinite(new).all((1, 2))
    return loc, new, good


def _choleskys(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(factors, whether there is one): the identity where there is none."""
    try:
        return np.linalg.cholesky(matrices), np.ones(len(matrices), bool)
    except np.linalg.LinAlgError:
        found, definite = np.tile(np.eye(matrices.shape[1]), (len(matrices), 1, 1)), np.zeros(len(matrices), bool)
        for k, matrix in enumerate(matrices):
            with contextlib.suppress(np.linalg.LinAlgError):
                found[k], definite[k] = np.linalg.cholesky(matrix), True
        return found, definite


def steps_of(
    step: Callable[[Any, PRNGKeyArray, int], tuple[Any, float, bool]], state: Any, key: PRNGKeyArray, first: int, n: int
) -> tuple[Any, dict[str, np.ndarray]]:
    """(the state after steps first ... first + n - 1, their records "elbo" and "good")."""
    elbo, good = np.empty(n), np.empty(n, bool)
    for i in range(n):
        state, elbo[i], good[i] = step(state, key, first + i)
    return state, {"elbo": elbo, "good": good}


def has_settled(elbo: np.ndarray, chunk: int) -> bool:
    """Whether the ELBO of the last steps is that of those before; a chunk's worth of each, after one more."""
    recent = elbo[-2 * chunk :]
    return len(elbo) >= 3 * chunk and bool(np.isfinite(recent).all()) and _gain(recent) < 0.02


def cool_down(
    state: Any, elbo: np.ndarray, chunk: int, cool_steps: int, *, now: bool, steps: int
) -> tuple[Any, Status | None]:
    """(the state, cooling down once the ELBO has settled, or `now`; converged when it is cool, else None).

    Args:
        state: with a field `cooling`, the step at which that began, -1 before.
        elbo: one number a step so far.
        chunk: steps between two looks.
        cool_steps: steps of cooling down.
        now: not to wait.
        steps: so many at most.
    """
    done, start = len(elbo), int(state.cooling)
    if start >= 0:
        return state, (Status.CONVERGED if done >= start + cool_steps else None)
    if has_settled(elbo, chunk) or now or done >= steps - cool_steps:
        state = state._replace(cooling=np.array(done))
    return state, None


def _gain(elbo: np.ndarray) -> float:
    """How much the median of the second half exceeds that of the first, less its noise.

    The noise is told from step to step, by a median: an ELBO that still rises steeply is no noise.
    """
    halves = np.split(elbo, 2)
    noise = sum(_NORMAL_MAD * np.median(np.abs(np.diff(half))) / np.sqrt(2 * len(half)) for half in halves)
    return float(np.median(halves[1]) - np.median(halves[0]) - noise)


def _largest_eigenvalues(matrices: np.ndarray) -> np.ndarray:
    """Of symmetric matrices, the one largest in size, with its sign; about, by six squared power iterations."""
    v = np.linspace(1, 1.5, matrices.shape[1])
    v = np.tile((v / np.linalg.norm(v))[:, None], (len(matrices), 1, 1))
    for _ in range(6):
        w = matrices @ (matrices @ v)
        v = w / (np.linalg.norm(w, axis=1, keepdims=True) + 1e-30)
    w = matrices @ v
    return np.linalg.norm(w, axis=1)[:, 0] * np.sign((v * w).sum((1, 2)))
