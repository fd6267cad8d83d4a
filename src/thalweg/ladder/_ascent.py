"""A climb while it lasts: what the rungs see of it, and what they do alike."""

import dataclasses
import math
from collections.abc import Collection
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from thalweg._core import PRNGKeyArray, ahead, named_on_host, numpy_rng, split_on_host
from thalweg.diagnostics import all_but_even, importance_ess, psis
from thalweg.distributions import AbstractSampler
from thalweg.fit import Fit
from thalweg.flows import make_flow
from thalweg.ladder._fits import MANY, Budget, Reached, affine_weights, fit_flow, flow_process
from thalweg.ladder._modes import Fitted, Mode, missed_draws, missed_mode
from thalweg.ladder._places import places
from thalweg.objectives import ForwardKL
from thalweg.posterior import (
    POOL,
    Estimate,
    ModeShare,
    Posterior,
    WeighedDraws,
    constrain,
    make_posterior,
    rehearse,
    unconstrain,
    weigh,
    with_sharper_evidence,
)
from thalweg.targets import Target

STEPS, FURTHER_STEPS, FURTHER_OF_MANY = 500, 2500, 1000
_QUICKLY = ("realnvp", "nice", "nice-orth", "iaf", "iaf-gated", "planar", "radial", "sylvester")
"""Flows that XLA had better compile with less effort: that saves 1 to 2.4 s, and costs less over so many steps."""
_GOOD_KHAT, _GOOD_SHARE = 0.5, 0.5
"""A Gaussian whose weights are this good needs no flow."""
_COUNTED = 4000
"""Draws by which the modes' shares are told."""
_FAIR_KHAT, _LARGE_SHARE, _FAIR_SHARE = 0.7, 0.9, 0.4
"""Nor does one whose weights are this even: what a heavier tail may add is little. With the smaller share a Gaussian is
fair: in 13 fits of three models, k-hat .42 to .77, corrected means were within 0.031 sd of the truth, sds within
3.3 %."""

_FORESEEN = 1000
"""Draws that tell whether a flow will be asked for."""
_DEAR, _FAIR_FLOW = 50, 0.8
"""Coordinates from which a flow with so large a share of its draws effective goes no further. On 89 coordinates of a
hierarchy 500 steps left 83 and 90 % effective at two seeds, 2,500 more, of 9 s, 81 % of the first."""


class Look(NamedTuple):
    """What raw weights say: k-hat, the effective share of the draws, whether they are all but even."""

    khat: float
    share: float
    even: bool

    @classmethod
    def at(cls, log_weights: np.ndarray | None) -> "Look":
        """At the weights of one set of draws."""
        # what is NaN or infinite is told once it is judged
        if log_weights is None or not np.all(log_weights < np.inf) or np.isneginf(log_weights).all():
            return cls(np.inf, 0.0, even=False)
        ess = importance_ess(log_weights)
        return cls(psis(log_weights).khat, ess / len(log_weights), all_but_even(log_weights))

    @property
    def is_good(self) -> bool:
        """Whether nothing richer than a Gaussian is needed."""
        light = self.khat < _GOOD_KHAT and self.share > _GOOD_SHARE
        return self.even or light or (self.khat < _FAIR_KHAT and self.share > _LARGE_SHARE)

    @property
    def is_fair(self) -> bool:
        """Whether nothing richer is worth its time on top of one Gaussian."""
        return self.is_good or (self.khat < _FAIR_KHAT and self.share > _FAIR_SHARE)

    def __str__(self) -> str:
        return f"its weights ask for more (k-hat {self.khat:.2f}, {self.share:.0%} of the draws effective)"


def is_good(posterior: Posterior) -> bool:
    """Trusted, with weights that nothing richer need improve."""
    return posterior.verdict.ok and Look.at(posterior.log_weights).is_good


def is_fair(posterior: Posterior) -> bool:
    """Trusted, with weights that nothing richer is worth its time for."""
    return posterior.verdict.ok and Look.at(posterior.log_weights).is_fair


@dataclasses.dataclass
class Ascent:
    """What is known so far.

    Attributes:
        target: the log density.
        settings: what decides the result: "flow", "steps" (None: as many as needed), "n_draws", "learning_rate",
            "batch_size", "dtype".
        budget: what bounds it.
        mesh: devices, or None.
        weigh_key: for the draws that are weighed.
        modes: the Gaussians that starts ended in, the best first.
        gaussian: what their fits left.
        steps_taken: what was done, in sentences.
        found: the posteriors that rungs reached, by their names, in order; none of them was enough.
        alone: the best Gaussian's posterior, where it was weighed in full.
        ran_off: whether the reverse KL of a flow did, as on a density with walls.
        draws: that the user gave to begin at, (m, d), or None.
    """

    target: Target
    settings: dict[str, Any]
    budget: Budget
    mesh: Mesh | None
    weigh_key: PRNGKeyArray
    modes: Fitted
    gaussian: Reached
    steps_taken: list[str] = dataclasses.field(default_factory=list)
    found: dict[str, Posterior] = dataclasses.field(default_factory=dict)
    alone: Posterior | None = None
    ran_off: bool = False
    draws: np.ndarray | None = None

    @cached_property
    def has_modes(self) -> bool:
        """Whether starts ended in places of their own, which a flow on top of one would not find."""
        return self.modes.are_apart(self.target)

    @property
    def richer(self) -> str:
        """The flow on top of a Gaussian; a coupling of one coordinate has nothing to see: only the spline bends it."""
        return "spline" if self.target.size == 1 else "realnvp"

    def move(self, target: Target, modes: Fitted, gaussian: Reached) -> None:
        """Go on from the same target on another R^d, with the Gaussians that were fitted there."""
        if self.draws is not None and len(self.draws):
            params = constrain(self.target.space, self.target.data, self.draws)
            self.draws = unconstrain(target.space, target.data, params)[0]
        self.target, self.modes, self.gaussian, self.alone = target, modes, gaussian, None
        self.__dict__.pop("has_modes", None)
        self.say(gaussian.sentence)

    def say(self, sentence: str) -> None:
        """What was done."""
        self.steps_taken.append(sentence)

    def add(self, why: str) -> None:
        """To what was said last."""
        self.steps_taken[-1] += f"; {why}"

    def drop(self, posterior: Posterior) -> None:
        """Say why one is not enough."""
        verdict = posterior.verdict
        self.add(str(Look.at(posterior.log_weights)) if verdict.ok else f"not trusted: {'; '.join(verdict.reasons)}")

    def best(self, names: Collection[str] | None = None) -> Posterior | None:
        """Of what these rungs found, or all: a trusted one, one with all modes, the one of the most effective draws."""
        some = [p for name, p in self.found.items() if names is None or name in names]
        return max(some, key=lambda p: (p.verdict.ok, not p.verdict.missed_mode, p.verdict.ess), default=None)

    def closed(self, posterior: Posterior) -> Posterior:
        """With a sharper evidence, all that was done to reach it, kept or not, and what each mode holds."""
        sharper = with_sharper_evidence(posterior, named_on_host(self.weigh_key, "evidence"), self.budget.limit)
        return dataclasses.replace(sharper, steps_taken=tuple(self.steps_taken), modes=self._shares(posterior))

    def _shares(self, posterior: Posterior) -> tuple[ModeShare, ...]:
        """Of the corrected draws, those in each place apart; none where there is one place."""
        unknown = posterior.log_evidence is None or posterior.target is not self.target
        if len(self.modes.elbo) < 2 or unknown or (self.budget.is_over and not posterior.verdict.ok):
            return ()
        try:
            u = posterior.resample_unconstrained(_COUNTED, seed=self.weigh_key).astype(float)
        except ValueError:
            # one of these draws cannot be weighed; `resample` tells whoever asks
            return ()
        of_draw = places(self.modes, u)
        if of_draw.max() < 1:
            return ()
        share = np.bincount(of_draw[of_draw >= 0]) / len(u)
        error = np.sqrt(share * (1 - share) / max(1.0, min(posterior.verdict.ess, _COUNTED)))
        middles = [jnp.asarray(u[of_draw == k].mean(0)) for k in range(len(share))]
        near = [self.target.space.describe(middle, self.target.data) for middle in middles]
        return tuple(ModeShare(Estimate(float(s), float(e)), n) for s, e, n in zip(share, error, near, strict=True))

    def process(self, name: str, covering: ForwardKL | None = None, *, slower: float = 1.0) -> Fit:
        """The fit of a flow of this name, by the settings; `covering` as `flow_process` has it."""
        rows = self.settings["batch_size"]
        # Adam's steps are as long in noise as in signal, and the rows left out are noise
        share = 1.0 if rows is None else min(1.0, rows / self.target.n_rows)
        return flow_process(
            self.target,
            covering,
            learning_rate=slower * self.settings["learning_rate"] * math.sqrt(share),
            n_draws=self.settings["n_draws"],
            batch_size=rows,
            mesh=self.mesh,
            quick=name in _QUICKLY and (self.settings["steps"] or 0) <= FURTHER_STEPS,
        )

    def foresee(self, best: Mode) -> None:
        """`prepare` the flow that is fitted next, unless this Gaussian, of the first fits the best, looks fair."""
        target = self.target
        if target.size > MANY or target.noncentred is not None or target.runs_alone or self.budget.is_over:
            return
        rng = numpy_rng(named_on_host(self.weigh_key, "foresee"))
        if not Look.at(affine_weights(target, best, rng, n=_FORESEEN)).is_fair:
            self.prepare(self.richer)

    def prepare(self, name: str) -> None:
        """Compile the step of a flow by name, beside whatever goes on."""
        target = self.target
        if name == "gaussian" or target.runs_alone:
            return

        def compile_step() -> None:
            process = self.process(name)
            start = make_flow(name, target.size, loc=np.zeros(target.size), scale_tril=np.eye(target.size))
            process.rehearse(process.init(start), self.weigh_key)

        ahead(compile_step)

    def fit(self, start: AbstractSampler, name: str, key: PRNGKeyArray) -> Posterior:
        """Fit a flow; further where nobody said how long, and its weights are not all but even."""
        first_key, second_key = split_on_host(key, 2)
        process = self.process(name)
        if not self.target.runs_alone:
            ahead(lambda: rehearse(start, self.target))
        reached = fit_flow(process, start, name, first_key, self.budget, steps=self.settings["steps"] or STEPS)
        self.ran_off = bool(reached.failed)
        self.say(reached.sentence)
        if self.settings["steps"] or reached.failed or self.budget.is_over:
            return self.finish(reached)
        weighed = weigh(reached.flow, self.target, self.weigh_key, POOL)
        # on a funnel in ten dimensions flows with 90 to 93 % effective lacked 1.5 % of the mass
        look, many = Look.at(weighed.log_weights), self.target.size > MANY
        share = _FAIR_SHARE if many else _FAIR_FLOW
        fair = self.target.size > _DEAR and look.khat < _FAIR_KHAT and look.share > share
        if weighed.are_even or fair:
            posterior = self.finish(reached, weighed)
            if posterior.verdict.ok or self.budget.is_over:
                return posterior
        steps = FURTHER_OF_MANY if many else FURTHER_STEPS
        more = fit_flow(process, reached.flow, f"{name}, further", second_key, self.budget, steps=steps)
        history = {k: np.concatenate([reached.history[k], more.history[k]]) for k in reached.history}
        self.say(more.sentence)
        return self.finish(more._replace(history=history))

    def finish(self, reached: Reached, weighed: WeighedDraws | None = None) -> Posterior:
        """Weigh what was reached, unless its draws `weighed` are given, and judge it."""
        return make_posterior(
            reached.flow,
            self.target,
            seed=self.weigh_key,
            dtype=self.settings["dtype"],
            trace={"step": np.arange(len(reached.history["elbo"])), "elbo": reached.history["elbo"]},
            settings=self.settings,
            steps_taken=tuple(self.steps_taken),
            failed=reached.failed,
            missed_mode=reached.missed or self._missed(reached.flow),
            weighed=weighed,
        )

    def _missed(self, flow: AbstractSampler) -> str | None:
        """A sentence where the flow leaves out what is known of otherwise."""
        known = missed_mode(self.target, flow, self.modes, self.weigh_key, briefly=self.budget.is_over)
        return known or (None if self.draws is None else missed_draws(self.target, flow, self.draws, self.weigh_key))

    def best_gaussian(self) -> Reached:
        """The best Gaussian as a flow."""
        return self.gaussian._replace(
            flow=make_flow("gaussian", self.target.size, **self.modes.gaussians[0].parameters)
        )
