"""Modes that other starts ended in: a fit that leaves them out must not be trusted."""

import dataclasses
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from thalweg._core import PRNGKeyArray, log_sum_exp, numpy_rng
from thalweg.distributions import AbstractSampler
from thalweg.ladder._string import is_joined
from thalweg.posterior import POOL, charts_of, draw_and_score, follow, score
from thalweg.targets import Target, log_density_of_rows

APART, NATS, LEFT_OUT, _TOO_HIGH = 5.0, 5.0, 2.0, 5.0
BEYOND = APART**2 / 2
"""Nats that a Gaussian loses over its reach."""
LEAST_MASS, _LEAST_TOGETHER, _FEWEST = 0.01, 0.005, 30
_MATTERS = np.array([LEAST_MASS, 0.1, 0.2])
"""Of the mass, of a mean's move in sd, of a variance's in its own units."""
_LEAST_LOST, _LEAST_LOST_SHARE = 4, 0.03
_LOOKS = 100
_DRAWS = 200


@dataclasses.dataclass(frozen=True, eq=False)
class Mode:
    """Where a start's Gaussian ended.

    Attributes:
        loc: its mean, (d,).
        scale_tril: its Cholesky factor, (d, d).
    """

    loc: np.ndarray
    scale_tril: np.ndarray

    @property
    def parameters(self) -> dict[str, Any]:
        """What `make_flow` takes."""
        return {"loc": self.loc, "scale_tril": self.scale_tril}

    @property
    def covariance(self) -> np.ndarray:
        """Its covariance, (d, d)."""
        return self.scale_tril @ self.scale_tril.T

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.scale_tril)

    @cached_property
    def _log_peak(self) -> float:
        log_scale = np.log(np.abs(np.diagonal(self.scale_tril))).sum()
        return float(-log_scale - 0.5 * len(self.loc) * np.log(2 * np.pi))

    @cached_property
    def draws(self) -> np.ndarray:
        """A few of its own, the same each time."""
        z = np.random.default_rng(0).standard_normal((_LOOKS, len(self.loc)))
        return self.loc + z @ self.scale_tril.T

    def whiten(self, u: np.ndarray) -> np.ndarray:
        """Rows of R^d in the Gaussian's own coordinates."""
        return (u - self.loc) @ self._inverse.T

    def log_prob(self, u: np.ndarray) -> np.ndarray:
        """The Gaussian's log density at rows of R^d."""
        return self._log_peak - 0.5 * (self.whiten(u) ** 2).sum(1)


class Fitted(NamedTuple):
    """Gaussians from k starts, and what each holds of the target.

    Attributes:
        gaussians: k of them.
        elbo: their ELBOs, (k,): about the log of the target's mass there.
    """

    gaussians: list[Mode]
    elbo: np.ndarray

    def joined(self, more: "Fitted") -> "Fitted":
        """Both."""
        return Fitted(self.gaussians + more.gaussians, np.concatenate([self.elbo, more.elbo]))

    def chosen(self, which: list[int]) -> "Fitted":
        """Some of them."""
        return Fitted([self.gaussians[k] for k in which], self.elbo[which])

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """What they make of the target together: the log of the sum of exp(ELBO) times the Gaussians, at rows."""
        return log_sum_exp([e + g.log_prob(u) for g, e in zip(self.gaussians, self.elbo, strict=True)], axis=0)

    def modes(self, at_most: float = NATS) -> "Fitted":
        """The best, and those that hold mass of their own and are about as good (5 nats), the best first.

        Each counts that is mostly where the better ones together have next to nothing: of a wide Gaussian over many
        modes they may be part. Worse ones count too where they would be 0.5 % of the mass together.

        Args:
            at_most: so many nats worse than the best.
        """
        order = np.argsort(-self.elbo)
        best = int(order[0])
        if not np.isfinite(self.elbo[best]):
            return self.chosen([best])
        # at most so much, with all that are worse
        together = np.logaddexp.accumulate(self.elbo[order[::-1]])[::-1] - self.elbo[best]
        which = [best]
        for k, mass in zip(order, together, strict=True):
            if self.elbo[k] < self.elbo[best] - at_most and mass <= np.log(_LEAST_TOGETHER):
                break
            if self._left_out(int(k), which) > LEFT_OUT:
                which.append(int(k))
        own = self.elbo[which]
        total = log_sum_exp(own)
        rest = [log_sum_exp(own[i:]) - total for i in range(len(own))]
        kept = [i for i in range(len(own)) if own[i] >= own[0] - at_most or rest[i] > np.log(_LEAST_TOGETHER)]
        return self.chosen([which[i] for i in kept])

    def not_in(self, other: "Fitted") -> np.ndarray:
        """Whether each holds mass of its own beside all of the other's, (k,)."""
        own = other.joined(self).modes(np.inf).gaussians
        return np.array([any(g is one for one in own) for g in self.gaussians])

    @property
    def small(self) -> "Fitted":
        """Those that hold mass of their own, but too little to be modes."""
        own = self.modes(np.inf)
        return own.chosen(list(range(len(self.modes().elbo), len(own.elbo))))

    @property
    def far(self) -> list[int]:
        """Numbers of those whose draws lie beyond the first one's reach: what a flow on top of it may never see."""
        return [k for k in range(len(self.gaussians)) if self._left_out(k, [0]) > BEYOND]

    def _left_out(self, k: int, which: list[int]) -> float:
        """By how much the density of one exceeds what others make of the target, at the median of its draws."""
        if k in which or not np.isfinite(self.elbo[k]):
            return -np.inf
        g = self.gaussians[k]
        return float(np.median(self.elbo[k] + g.log_prob(g.draws) - self.chosen(which).log_density(g.draws)))

    def log_volumes(self, target: Target) -> np.ndarray:
        """Of each: its ELBO less the log density at its mean."""
        heights = log_density_of_rows(target, np.stack([g.loc for g in self.gaussians]))
        return self.elbo - np.where(np.isneginf(heights), 0.0, heights)

    def are_apart(self, target: Target) -> bool:
        """Whether a far one is a place of its own.

        Its mean lies 5 sd from the first one's in both's units: it is not only wider or narrower. And the log density
        falls by 2 nats between, however one bends the way: it is not further along the same ridge, or down the same
        funnel.
        """
        first = self.gaussians[0]
        for mode in (self.gaussians[k] for k in self.far):
            steps = (first.whiten(mode.loc[None]), mode.whiten(first.loc[None]))
            if min(np.linalg.norm(s) for s in steps) <= APART:
                continue
            # of the mean of both covariances, which rounding may leave without a Cholesky factor
            _, upper = np.linalg.qr(np.vstack([first.scale_tril.T, mode.scale_tril.T]) / np.sqrt(2))
            if not is_joined(target, np.stack([first.loc, mode.loc]), upper.T, LEFT_OUT):
                return True
        return False


def missed_draws(target: Target, flow: AbstractSampler, draws: np.ndarray, key: PRNGKeyArray) -> str | None:
    """A sentence where draws that are known, (m, d), lie where the flow has next to nothing.

    That is, the target's density is more than e^5 times too high for it at 3 % of them, and at four at least.
    """
    if not len(draws):
        return None
    own, log_q = draw_and_score(flow, key, _DRAWS)
    usual = float(np.median(log_density_of_rows(target, own) - log_q))
    draws = draws.astype(own.dtype)
    lost = log_density_of_rows(target, draws) - score(flow, draws) - usual > _TOO_HIGH
    if lost.sum() < max(_LEAST_LOST, _LEAST_LOST_SHARE * len(draws)):
        return None
    place = target.space.describe(jnp.asarray(draws[np.argmax(lost)]), target.data)
    return f"{lost.mean():.0%} of the draws in `init` lie where the flow has next to nothing (one near {place})"


def missed_mode(
    target: Target, flow: AbstractSampler, modes: Fitted, key: PRNGKeyArray, *, briefly: bool = False
) -> str | None:
    """A sentence where the flow leaves out modes that matter: too few of the draws that are weighed lie in them.

    That is, less than a fifth of the mode's mass lies under the flow's density (the mean over draws of the mode of the
    lesser of 1 and q / p), and so fewer than 30 draws; and chains that follow the log density stay in it: from the neck
    of a funnel they lead back to the flow. Such modes matter if together they hold more than 1 % of the mass, move a
    mean by more than 0.1 of the flow's sd, or a variance by a fifth.
    """
    if not modes.far:
        return None
    own, log_q = draw_and_score(flow, key, _DRAWS)
    usual = float(np.median(log_density_of_rows(target, own) - log_q))
    rng = numpy_rng(key)
    z = rng.standard_normal((_DRAWS, target.size))
    chart = charts_of(flow, target, own.astype(float), np.full(len(own), 1 / len(own)))[0]

    def is_left_out(u: np.ndarray, mass: float) -> bool:
        u = u.astype(own.dtype)
        log_p = log_density_of_rows(target, u)
        of_it = log_p > -np.inf
        too_high = log_p[of_it] - usual - score(flow, u)[of_it]
        # too little at its middle is no mass left out: weights see what draws there are, and mend it
        held = float(np.exp(np.minimum(-too_high, 0.0)).mean()) if of_it.any() else 1.0
        return held < 1 / _TOO_HIGH and held * mass * POOL < _FEWEST

    lost, heaviest, where = [], -np.inf, modes.gaussians[0].loc
    for mode, elbo in ((modes.gaussians[k], float(modes.elbo[k])) for k in modes.far):
        mass = float(np.exp(min(elbo - usual, 0.0)))
        u = mode.loc + z @ mode.scale_tril.T
        if is_left_out(u, mass) and (briefly or is_left_out(follow(chart, u, rng), mass)):
            far = (mode.loc - own.mean(0)) / own.std(0)
            lost.append([np.full(len(far), mass), mass * far, mass * far**2])
            heaviest, where = (elbo, mode.loc) if elbo > heaviest else (heaviest, where)
    if not lost or (np.abs(np.sum(lost, axis=0)).max(axis=1) < _MATTERS).all():
        return None
    place = target.space.describe(jnp.asarray(where.astype(own.dtype)), target.data)
    return (
        f"another start ended in another mode, near {place}, which the flow leaves out (order the labels if they are "
        "what sets the modes apart, or fit each mode by its init)"
    )
