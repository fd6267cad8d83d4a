"""When to climb: a Gaussian where its weights are good, else a flow on top of it, for longer where it needs to be."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from thalweg._core import PRNGKeyArray, ahead, check_shape, numpy_rng, split_on_host
from thalweg.diagnostics import all_but_even, importance_ess, psis
from thalweg.distributions import AbstractSampler, Mixture
from thalweg.fit import Fit
from thalweg.flows import make_flow
from thalweg.ladder._mixture import weigh_components
from thalweg.ladder._modes import Fitted, Mode, missed_mode
from thalweg.ladder._rungs import Budget, Rung, flow_process, flow_rung, gaussian_rung, gaussian_weights
from thalweg.ladder._tempered import temper
from thalweg.objectives import ForwardKL
from thalweg.posterior import Posterior, make_posterior, metric_of, rehearse
from thalweg.targets import Starts, Target

_STEPS, _FURTHER_STEPS = 500, 2500
_GOOD_KHAT, _GOOD_SHARE = 0.5, 0.5
"""A Gaussian whose weights are this good needs no flow; a flow that is trusted, with this share, no further steps."""
_LEARNING_STEPS, _PARTICLES_A_STEP, _LEARNING_RATE, _SLOWER = 2000, 512, 5e-3, 0.2
"""Of a flow that learns from particles; how much slower it settles: it covers all modes, and should not lose them."""
_MOST_FLOWS = 8
"""Fitted one by one, each on top of a mode; beyond, one flow learns all modes."""
_MOST_PARAMETERS = 200
"""Of a target that particles are led to: of more their own covariance says too little."""
_FAIR_KHAT, _LARGE_SHARE = 0.7, 0.9
"""Nor does one whose weights are this even: what a heavier tail may add is little."""


class _Look(NamedTuple):
    """What raw weights say: k-hat, the effective share of the draws, whether they are all but even."""

    khat: float
    share: float
    even: bool

    @classmethod
    def at(cls, log_weights: np.ndarray | None) -> "_Look":
        if log_weights is None:
            return cls(np.inf, 0.0, even=False)
        ess = importance_ess(log_weights)
        return cls(psis(log_weights).khat, ess / len(log_weights), all_but_even(log_weights))

    def is_good(self) -> bool:
        light = self.khat < _GOOD_KHAT and self.share > _GOOD_SHARE
        return self.even or light or (self.khat < _FAIR_KHAT and self.share > _LARGE_SHARE)


@dataclasses.dataclass(frozen=True)
class Climb:
    """One climb.

    Attributes:
        target: the log density.
        settings: what decides the result: "flow", "steps" (None: as many as needed), "n_draws", "learning_rate",
            "batch_size", "dtype".
        key: all randomness.
        budget: what bounds it.
        mesh: devices, or None.
    """

    target: Target
    settings: dict[str, Any]
    key: PRNGKeyArray
    budget: Budget
    mesh: Mesh | None

    def run(self, flow: str | AbstractSampler, starts: Starts, begun: tuple[Fitted, Rung] | None = None) -> Posterior:
        """The posterior by "auto", by a flow's name, or by a flow built by hand.

        Args:
            flow: what to fit.
            starts: where to begin.
            begun: the first rung, where it has been climbed.

        Raises:
            ValueError: if a flow built by hand has another shape than R^d.
        """
        gauss_key, look_key, flow_key, weigh_key = split_on_host(self.key, 4)
        target = self.target
        if not isinstance(flow, str):
            check_shape("flow", np.empty(flow.shape), (target.size,), "a flow built by hand is a distribution on R^d")
            return self._fit(
                flow, self.settings["flow"], flow_key, partial(self._finish, weigh_key, Fitted([], np.empty(0)))
            )
        modes, gaussian = begun or gaussian_rung(target, starts, gauss_key, self.budget)
        finish = partial(self._finish, weigh_key, modes)
        if flow == "auto":
            return self._auto(modes, gaussian, finish, look_key, flow_key)
        best = modes.gaussians[0].parameters
        if flow == "gaussian":
            return finish(gaussian._replace(flow=make_flow("gaussian", target.size, **best)), gaussian.sentence)
        start = make_flow(flow, target.size, **best, seed=flow_key)
        return self._fit(start, flow, flow_key, finish, gaussian.sentence)

    def _auto(
        self, modes: Fitted, gaussian: Rung, finish: Callable[..., Posterior], look_key: PRNGKeyArray, key: PRNGKeyArray
    ) -> Posterior:
        """A Gaussian where its weights are good, else a flow on top of it; a mixture where there are modes; chains."""
        flow_key, refine_key, again_key = split_on_host(key, 3)
        if modes.are_apart(self.target):
            return self._of_modes(modes, gaussian, finish, flow_key, refine_key)
        best, size = modes.gaussians[0], self.target.size
        fitted = gaussian._replace(flow=make_flow("gaussian", size, **best.parameters))
        taken, alone = gaussian.sentence, None
        look = _Look.at(gaussian_weights(self.target, best, numpy_rng(look_key)))
        if look.is_good():
            alone = finish(fitted, taken)
            look = _Look.at(alone.log_weights)
            # the second look is at other draws: one lucky set of weights is not enough
            if alone.verdict.ok and look.is_good():
                return alone
        if alone is not None and alone.verdict.missed_mode and modes.far:
            return self._of_modes(modes, gaussian, finish, flow_key, refine_key)
        taken += f"; its weights ask for more (k-hat {look.khat:.2f}, {look.share:.0%} of the draws effective)"
        start = make_flow(self._richer, size, **best.parameters, seed=flow_key)
        posterior = self._refined(self._fit(start, self._richer, flow_key, finish, taken), refine_key)
        if not posterior.verdict.ok and len(modes.elbo) > 1 and not self.budget.is_over:
            several = self._of_modes(modes, gaussian, finish, again_key, refine_key, *posterior.steps_taken[1:])
            if several.verdict.ok:
                return several
        if not posterior.verdict.ok:
            sentence = f"{posterior.steps_taken[-1]}; its weights are not good, so the Gaussian was weighed again"
            alone = alone or finish(fitted, *posterior.steps_taken[:-1], sentence)
            return alone if alone.verdict.ok and _Look.at(alone.log_weights).is_good() else posterior
        return posterior

    def _refined(self, posterior: Posterior, key: PRNGKeyArray) -> Posterior:
        """Chains where weights cannot be trusted; chains begun at a flow's draws do not find what it leaves out."""
        verdict = posterior.verdict
        if verdict.ok or verdict.missed_mode or posterior.log_weights is None or self.budget.is_over:
            return posterior
        refined = posterior.refine(seed=key, budget=self.budget.limit, progress=self.budget.progress)
        if refined.verdict.ok:
            return refined
        why = f"{refined.steps_taken[-1]}; not kept: {'; '.join(refined.verdict.reasons)}"
        return dataclasses.replace(posterior, steps_taken=(*posterior.steps_taken, why))

    @property
    def _richer(self) -> str:
        """The flow on top of a Gaussian; a coupling of one coordinate has nothing to see: only the spline bends it."""
        return "spline" if self.target.size == 1 else "realnvp"

    def _of_modes(
        self,
        modes: Fitted,
        gaussian: Rung,
        finish: Callable[..., Posterior],
        key: PRNGKeyArray,
        refine_key: PRNGKeyArray,
        *before: str,
    ) -> Posterior:
        """A mixture of Gaussians, one a mode; of flows; or one flow that learns from particles. The first that is good.

        `before` says what was tried between the Gaussian and this.
        """
        weigh_key, flow_key, particle_key = split_on_host(key, 3)
        parts = [make_flow("gaussian", self.target.size, **m.parameters) for m in modes.gaussians]
        mixture = weigh_components(Mixture(parts), self.target, weigh_key)
        sentence = f"a mixture of {len(parts)} Gaussians, one a mode, weights by importance"
        taken = (gaussian.sentence, *before, sentence)
        best = finish(gaussian._replace(flow=mixture), *taken)
        look = _Look.at(best.log_weights)
        if best.verdict.ok and look.is_good():
            return best
        told = f"{sentence}; its weights ask for more (k-hat {look.khat:.2f}, {look.share:.0%} of the draws effective)"
        taken = (*taken[:-1], told)
        # flows on top of some modes do not make up for others, and many take long
        if not gaussian.missed and len(parts) <= _MOST_FLOWS:
            flows = self._refined(finish(*self._flow_each(modes.gaussians, flow_key, taken)), refine_key)
            if flows.verdict.ok:
                return flows
            taken = flows.steps_taken
            # a flow may have left its mode for a neighbour
            best = flows if flows.verdict.missed_mode is None and not best.verdict.ok else best
        if self.target.size <= _MOST_PARAMETERS and not self.budget.is_over:
            learnt = self._refined(self._from_particles(modes, finish, particle_key, taken), refine_key)
            if learnt.verdict.ok or (not best.verdict.ok and learnt.verdict.ess > best.verdict.ess):
                return learnt
            why = f"{learnt.steps_taken[-1]}; not kept: {'; '.join(learnt.verdict.reasons)}"
            return dataclasses.replace(best, steps_taken=(*learnt.steps_taken[:-1], why))
        return best

    def _flow_each(self, modes: list[Mode], key: PRNGKeyArray, taken: tuple[str, ...]) -> tuple[Any, ...]:
        """A flow on top of each mode's Gaussian, and what was done."""
        weigh_key, start_key, *flow_keys = split_on_host(key, len(modes) + 2)
        name, process, rungs = self._richer, self._process(), []
        for k, (mode, flow_key) in enumerate(zip(modes, flow_keys, strict=True)):
            start = make_flow(name, self.target.size, **mode.parameters, seed=start_key)
            steps = self.settings["steps"] or _STEPS
            rungs.append(flow_rung(process, start, f"{name}, mode {k + 1}", flow_key, self.budget, steps=steps))
        mixture = weigh_components(Mixture([r.flow for r in rungs]), self.target, weigh_key)
        sentence = f"a mixture of {len(modes)} flows {name}, each fitted from a mode's Gaussian, weights by importance"
        history = {k: np.concatenate([r.history[k] for r in rungs]) for k in rungs[0].history}
        failed = next((r.failed for r in rungs if r.failed), None)
        return Rung(mixture, history, sentence, failed), *taken, sentence

    def _from_particles(
        self, modes: Fitted, finish: Callable[..., Posterior], key: PRNGKeyArray, taken: tuple[str, ...]
    ) -> Posterior:
        """A flow that learns from particles led to all modes; where that is not enough, it settles by reverse KL."""
        particle_key, start_key, learn_key, settle_key = split_on_host(key, 4)
        particles, sentence = temper(self.target, modes, particle_key, self.budget)
        tril = metric_of(particles, np.full(len(particles), 1 / len(particles)))
        start = make_flow("spline", self.target.size, loc=particles.mean(0), scale_tril=tril, seed=start_key)
        learning = Fit(ForwardKL(particles, batch_size=_PARTICLES_A_STEP), learning_rate=_LEARNING_RATE)
        steps, name = self.settings["steps"] or _LEARNING_STEPS, "spline, from particles"
        rung = flow_rung(learning, start, name, learn_key, self.budget, steps=steps, quantity="mean log q")
        taken = (*taken, sentence, rung.sentence)
        learnt = finish(rung, *taken)
        if learnt.verdict.ok or self.budget.is_over:
            return learnt
        process, steps, name = self._process(_SLOWER), self.settings["steps"] or _FURTHER_STEPS, "spline, settling"
        rung = flow_rung(process, rung.flow, name, settle_key, self.budget, steps=steps)
        # that may lose a mode again
        settled = finish(rung, *taken, rung.sentence)
        return settled if settled.verdict.ok or settled.verdict.ess > learnt.verdict.ess else learnt

    def _process(self, slower: float = 1.0) -> Fit:
        return flow_process(
            self.target,
            learning_rate=slower * self._learning_rate(),
            n_draws=self.settings["n_draws"],
            batch_size=self.settings["batch_size"],
            mesh=self.mesh,
        )

    def _fit(
        self, start: AbstractSampler, name: str, key: PRNGKeyArray, finish: Callable[..., Posterior], *taken: str
    ) -> Posterior:
        """Fit a flow; further where nobody said how long, and its weights are not good."""
        first_key, second_key = split_on_host(key, 2)
        process = self._process()
        rehearsed = ahead(lambda: rehearse(start, self.target))
        rung = flow_rung(process, start, name, first_key, self.budget, steps=self.settings["steps"] or _STEPS)
        rehearsed()
        posterior = finish(rung, *taken, rung.sentence)
        look = _Look.at(posterior.log_weights)
        if (posterior.verdict.ok and look.is_good()) or self.settings["steps"] or rung.failed or self.budget.is_over:
            return posterior
        more = flow_rung(process, rung.flow, f"{name}, further", second_key, self.budget, steps=_FURTHER_STEPS)
        history = {k: np.concatenate([rung.history[k], more.history[k]]) for k in rung.history}
        return finish(more._replace(history=history), *taken, rung.sentence, more.sentence)

    def _learning_rate(self) -> float:
        """Adam's steps are as long in noise as in signal, and the rows left out are noise."""
        rows = self.settings["batch_size"]
        share = 1.0 if rows is None else min(1.0, rows / self.target.n_rows)
        return self.settings["learning_rate"] * math.sqrt(share)

    def _finish(self, key: PRNGKeyArray, modes: Fitted, rung: Rung, *taken: str) -> Posterior:
        return make_posterior(
            rung.flow,
            self.target,
            seed=key,
            dtype=self.settings["dtype"],
            trace={"step": np.arange(len(rung.history["elbo"])), "elbo": rung.history["elbo"]},
            settings=self.settings,
            steps_taken=taken,
            failed=rung.failed,
            missed_mode=rung.missed or missed_mode(self.target, rung.flow, modes, key),
        )
