"""A full-rank Gaussian by natural-gradient ascent of the ELBO, from several starts at once."""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._core import PRNGKeyArray, key_words
from thalweg.run import AbstractProcess, Status
from thalweg.targets import Target, value_and_score_of_rows


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
        target: the log density.
        n_pairs: antithetic pairs of draws a step.
        rate: rho.
        cool_steps: steps of cooling down.
        all_careful: take no bold starts: where all of them are uphill of everything near already.
    """

    target: Target
    n_pairs: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    cool_steps: int = eqx.field(static=True)
    all_careful: bool = eqx.field(static=True)
    chunk: ClassVar[int] = 20

    def __init__(
        self,
        target: Target,
        *,
        n_pairs: int | None = None,
        rate: float = 0.5,
        cool_steps: int = 60,
        all_careful: bool = False,
    ) -> None:
        self.target, self.rate, self.cool_steps, self.all_careful = target, rate, cool_steps, all_careful
        self.n_pairs = 32 + target.size if n_pairs is None else n_pairs

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
        elbo, good = np.empty(n), np.empty(n, bool)
        for i in range(n):
            state, elbo[i], good[i] = self._step(state, key, first + i)
        return state, {"elbo": elbo, "good": good}

    def _step(self, state: GaussianState, key: PRNGKeyArray, index: int) -> tuple[GaussianState, float, bool]:
        since = max(0, index - int(state.cooling)) if state.cooling >= 0 else 0
        rate = self.rate * max(0.02, 1 - since / self.cool_steps) ** 2
        z = np.random.default_rng([*key_words(key), index]).standard_normal((self.n_pairs, self.target.size))
        z = np.concatenate([z, -z])
        u = state.loc[:, None] + z @ state.scale_tril.swapaxes(1, 2)
        with np.errstate(over="ignore"):  # a start that runs off is told of by what comes of it
            flat = u.reshape(-1, self.target.size).astype(jnp.result_type(float))
        log_p, score = value_and_score_of_rows(self.target, flat)
        log_p, score = log_p.astype(float).reshape(u.shape[:2]), score.astype(float).reshape(u.shape)
        loc, tril = np.empty_like(state.loc), np.empty_like(state.scale_tril)
        elbo = np.full(len(loc), -np.inf)
        for k in range(len(loc)):
            new = _moved(state.loc[k], state.scale_tril[k], z, score[k], rate, careful=self.all_careful or k % 2 == 0)
            if new is None or not np.isfinite(log_p[k]).all():
                loc[k], tril[k] = state.loc[k], state.scale_tril[k] / 2
            else:
                (loc[k], tril[k]), elbo[k] = new, _elbo(log_p[k], z, state.scale_tril[k])
        n_bad = np.asarray(state.n_bad + np.isneginf(elbo).sum())
        return state._replace(loc=loc, scale_tril=tril, n_bad=n_bad), elbo.max(), bool(np.isfinite(elbo).any())

    def review(
        self, state: GaussianState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[GaussianState, Status | None]:
        """Cool down once the best ELBO has settled; stop when cool."""
        done, elbo = len(history["elbo"]), history["elbo"]
        start = int(state.cooling)
        if start >= 0:
            return state, (Status.CONVERGED if done >= start + self.cool_steps else None)
        recent = elbo[-2 * self.chunk :]
        settled = done >= 3 * self.chunk and np.all(np.isfinite(recent)) and _gain(recent) < 0.02
        if settled or hurry or done >= steps - self.cool_steps:
            state = state._replace(cooling=np.array(done))
        return state, None


def _elbo(log_p: np.ndarray, z: np.ndarray, tril: np.ndarray) -> float:
    d = z.shape[1]
    log_q = -0.5 * (z**2).sum(1) - 0.5 * d * math.log(2 * math.pi) - np.log(np.diagonal(tril)).sum()
    return float((log_p - log_q).mean())


def _moved(
    loc: np.ndarray, tril: np.ndarray, z: np.ndarray, score: np.ndarray, rate: float, *, careful: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean, Cholesky factor) after one step, or None where it cannot be taken."""
    n, d = z.shape
    with np.errstate(all="ignore"):
        s = score @ tril + z
        mean, gram = s.mean(0), s.T @ z / n
        gram = 0.5 * (gram + gram.T)
        if not (np.isfinite(mean).all() and np.isfinite(gram).all()):
            return None
        # along the mean's own direction the curvature is known: no step goes beyond Newton's
        length = np.linalg.norm(mean) + 1e-30
        curvature = 1 + careful * max(0.0, -(mean / length) @ gram @ (mean / length))
        mean = mean / curvature
        slowing = min(1.0, math.sqrt(d) * curvature / (rate * length))
        shift = rate * slowing * mean
        largest = _largest_eigenvalue(gram)
        # a Gaussian that is still far from where it is going must not shrink on the way, or it never arrives
        slowing = slowing if largest < 0 and careful else 1.0
        # 0.8 leaves room for the eigenvalue's error
        step = rate * slowing * min(1.0, 0.8 / (rate * abs(largest) + 1e-12))
        try:
            # I - rho G = R R' with R upper triangular, so that R'^-1 is lower: the new factor is L R'^-1
            upper = np.linalg.cholesky((np.eye(d) - step * gram)[::-1, ::-1])[::-1, ::-1]
            # NumPy's solver, not SciPy's triangular one: two thread pools for one job take 100x as long
            new = loc + tril @ shift, np.tril(np.linalg.solve(upper, tril.T).T)
        except np.linalg.LinAlgError:
            return None
    return new if all(np.isfinite(a).all() for a in new) else None


def _gain(elbo: np.ndarray) -> float:
    """How much the median of the second half exceeds that of the first, less its noise."""
    first, second = np.split(elbo, 2)
    return float(np.median(second) - np.median(first) - (np.std(first) + np.std(second)) / np.sqrt(len(first)))


def _largest_eigenvalue(matrix: np.ndarray) -> float:
    """Of a symmetric matrix, the one largest in size, with its sign; about, by six squared power iterations."""
    v = np.linspace(1, 1.5, len(matrix))
    v = v / np.linalg.norm(v)
    for _ in range(6):
        w = matrix @ (matrix @ v)
        v = w / (np.linalg.norm(w) + 1e-30)
    return float(np.linalg.norm(matrix @ v) * np.sign(v @ (matrix @ v)))
