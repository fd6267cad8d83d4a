"""A Gaussian of many coordinates by the mean curvature, where a few products tell it."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import numpy as np

from thalweg._core import PRNGKeyArray
from thalweg.fit._gaussian import cool_down, steps_of
from thalweg.fit._precision import Factor, scale_tril_of
from thalweg.fit._sketched import DROP, DROP_IN_ERRORS, FARTHEST, FEWEST, LEAST_CURVATURE, NARROWER, seen, usual
from thalweg.run import AbstractProcess, Status
from thalweg.targets import Sparsity, Target, mean_hessian

_LOG_2PI = math.log(2 * math.pi)
_PRODUCTS, _MOST_PAIRS = 512, 32
"""Hessian-vector products a step, about; antithetic pairs of draws at most."""
_HALVINGS = 8
"""Of a step, until the precision is positive."""


class Place(NamedTuple):
    """A Gaussian, and what is known of its ELBO.

    Attributes:
        loc: its mean, (d,).
        precision: its entries, (m,).
        elbo: as it was seen last.
        slack: by how much that of the next one may be lower.
    """

    loc: np.ndarray
    precision: np.ndarray
    elbo: np.ndarray
    slack: np.ndarray


class CurvatureState(NamedTuple):
    """The state of a fit by curvature.

    Attributes:
        loc: the mean, (d,).
        precision: its entries, (m,), those of the Hessian's `Sparsity`.
        known: the Gaussian before, to go back to.
        trust: how far steps go, 1 at most.
        cooling: the step at which cooling down began, -1 before.
    """

    loc: np.ndarray
    precision: np.ndarray
    known: Place
    trust: np.ndarray
    cooling: np.ndarray

    @property
    def is_known(self) -> bool:
        """Whether it stands where the ELBO was seen last."""
        return np.array_equal(self.loc, self.known.loc)


class CurvatureFit(AbstractProcess[CurvatureState]):
    r"""Natural-gradient variational inference with N(m, P^-1), the Hessian of log p known from a few products.

    $P \leftarrow (1 - \rho) P - \rho\, E_q[\nabla^2 \log p]$, then $m \leftarrow m + \rho\, P^{-1} E_q[\nabla \log p]$,
    clipped; both means over antithetic draws. rho is halved until P keeps a share of what it was in all directions.
    What lowers the ELBO beyond its noise is taken back.

    The precision has the entries that the Hessian has, and so a sparse factor: of a chain or a hierarchy a step costs
    O(d). Source: Khan and Lin 2017; Khan and Rue 2023.

    Args:
        target: the log density.
        sparsity: of its Hessian.
        rate: rho.
        cool_steps: steps of cooling down.
    """

    target: Target
    sparsity: Sparsity
    rate: float = eqx.field(static=True)
    cool_steps: int = eqx.field(static=True)
    chunk: ClassVar[int] = 10

    def __init__(self, target: Target, sparsity: Sparsity, *, rate: float = 0.5, cool_steps: int = 40) -> None:
        self.target, self.sparsity, self.rate, self.cool_steps = target, sparsity, rate, cool_steps

    @property
    def n_pairs(self) -> int:
        """Antithetic pairs of draws a step."""
        return max(4, min(_MOST_PAIRS, _PRODUCTS // (2 * len(self.sparsity.directions))))

    def init(self, loc: np.ndarray, sd: np.ndarray) -> CurvatureState:
        """The state before the first step: independent normals, loc and sd (d,)."""
        loc, precision = np.array(loc, float), self.sparsity.diagonal(np.asarray(sd, float) ** -2.0)
        known = Place(loc, precision, np.array(-np.inf), np.array(DROP))
        return CurvatureState(loc, precision, known, np.array(1.0), np.array(-1))

    def scale_tril(self, state: CurvatureState) -> np.ndarray:
        """The covariance's Cholesky factor, (d, d)."""
        return scale_tril_of(self.sparsity.matrix(state.precision).toarray())

    def advance(
        self, state: CurvatureState, key: PRNGKeyArray, first: int, n: int
    ) -> tuple[CurvatureState, dict[str, np.ndarray]]:
        """Steps."""
        return steps_of(self._step, state, key, first, n)

    def _step(self, state: CurvatureState, key: PRNGKeyArray, index: int) -> tuple[CurvatureState, float, bool]:
        since = max(0, index - int(state.cooling)) if state.cooling >= 0 else 0
        rate = float(state.trust) * self.rate * max(0.02, 1 - since / self.cool_steps) ** 2
        factor, d = self._factor(state.precision), self.target.size
        if factor is None:
            return _taken_back(state), float(state.known.elbo), False
        z, log_p, score = seen(self.target, key, index, state.loc, self.n_pairs, factor.spread)
        terms = log_p + 0.5 * (z**2).sum(1)
        # of an antithetic pair both, or the mean score has the noise of one alone
        finite = np.tile(np.logical_and(*np.split(usual(terms) & np.isfinite(score).all(axis=1), 2)), 2)
        if finite.mean() < FEWEST:
            return _taken_back(state), float(state.known.elbo), False
        terms, drawn = terms[finite], (state.loc + factor.spread(z[finite]))
        elbo = float(terms.mean() - factor.log_det + 0.5 * d * _LOG_2PI)
        curvature = -mean_hessian(self.target, self.sparsity, drawn)
        is_lower = elbo < state.known.elbo - state.known.slack and not state.is_known
        if is_lower or not np.isfinite(curvature).all():
            return _taken_back(state), float(state.known.elbo), False
        rate, precision, newton = self._between(state.precision, factor, curvature, rate)
        shift = np.clip(newton.whiten(score[finite].mean(0)), -FARTHEST, FARTHEST)
        shift *= min(1.0, math.sqrt(d) / (rate * float(np.linalg.norm(shift)) + 1e-30))
        slack = max(DROP, DROP_IN_ERRORS * float(terms.std()) / math.sqrt(len(terms)))
        new = CurvatureState(
            state.loc + rate * newton.spread(shift[None])[0],
            precision,
            Place(state.loc, state.precision, np.array(elbo), np.array(slack)),
            np.asarray(min(1.0, 2 * float(state.trust))),
            state.cooling,
        )
        return new, elbo, True

    def _factor(self, precision: np.ndarray) -> Factor | None:
        return Factor.of(self.sparsity.matrix(precision))

    def _between(
        self, old: np.ndarray, factor: Factor, new: np.ndarray, rate: float
    ) -> tuple[float, np.ndarray, Factor]:
        """(how far, where, its factor) from one precision, of this `factor`, on the way to another.

        Not flatter than a share of it in any direction: along the draws a log density may curve upwards.
        """
        for _ in range(_HALVINGS):
            found = (1 - rate) * old + rate * new
            newton = self._factor(found)
            # in float64 a matrix may have a factor, and a larger one none
            if newton is not None and self._factor(found - LEAST_CURVATURE * old) is not None:
                return rate, found, newton
            rate /= 2
        return rate, old, factor

    def review(
        self, state: CurvatureState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[CurvatureState, Status | None]:
        """Cool down once the ELBO has settled; stop when cool."""
        return cool_down(state, history["elbo"], self.chunk, self.cool_steps, now=hurry, steps=steps)


def _taken_back(state: CurvatureState) -> CurvatureState:
    """Where the ELBO was seen last, to go on with less trust; narrower, where that is the state itself."""
    known = state.known
    if state.is_known:
        known = known._replace(precision=known.precision / NARROWER**2, elbo=np.array(-np.inf))
    trust = np.asarray(state.trust / 4)
    return state._replace(loc=known.loc, precision=known.precision, known=known, trust=trust)
