"""When to climb: a Gaussian where its weights are good, else a flow on top of it, for longer where it needs to be."""

import dataclasses
from typing import Any

import numpy as np
from jax.sharding import Mesh

from thalweg._core import PRNGKeyArray, ahead, check_shape, numpy_rng, split_on_host
from thalweg.distributions import AbstractSampler
from thalweg.flows import make_flow
from thalweg.ladder._rungs import Budget, Rung, flow_process, flow_rung, gaussian_rung, gaussian_weights
from thalweg.posterior import Posterior, Verdict, make_posterior, rehearse
from thalweg.targets import Target, find_start

_N_STARTS = 3
_STEPS, _FURTHER_STEPS = 500, 1000
_GAUSSIAN_KHAT, _FLOW_KHAT, _SHARE = 0.3, 0.5, 0.5
"""A Gaussian whose weights are this good needs no flow, a flow no further steps."""


def _share(verdict: Verdict) -> float:
    return verdict.ess / verdict.n_draws


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

    def run(self, flow: str | AbstractSampler, init: dict[str, Any] | None) -> Posterior:
        """The posterior by "auto", by a flow's name, or by a flow built by hand.

        Raises:
            ValueError: if no start is good, or a flow built by hand has another shape than R^d.
        """
        start_key, gauss_key, look_key, flow_key, weigh_key = split_on_host(self.key, 5)
        target = self.target
        starts = find_start(target, start_key, init)[:_N_STARTS]
        if not isinstance(flow, str):
            check_shape("flow", np.empty(flow.shape), (target.size,), "a flow built by hand is a distribution on R^d")
            return self._fit(flow, self.settings["flow"], flow_key, weigh_key)
        loc, tril, gaussian = gaussian_rung(
            target, starts, gauss_key, self.budget, batch_size=self.settings["batch_size"]
        )
        fitted = gaussian._replace(flow=make_flow("gaussian", target.size, loc=loc, scale_tril=tril))
        if flow == "gaussian":
            return self._finish(fitted, weigh_key, gaussian.sentence)
        taken = gaussian.sentence
        if flow == "auto":
            khat, share = gaussian_weights(target, loc, tril, numpy_rng(look_key))
            if khat < _GAUSSIAN_KHAT and share > _SHARE:
                posterior = self._finish(fitted, weigh_key, taken)
                khat, share = posterior.verdict.khat, _share(posterior.verdict)
                # the second look is at other draws: one lucky set of weights is not enough
                if khat < _GAUSSIAN_KHAT and share > _SHARE:
                    return posterior
            taken += f"; its weights ask for more (k-hat {khat:.2f}, {share:.0%} of the draws effective)"
        name = "realnvp" if flow == "auto" else flow
        start = make_flow(name, target.size, loc=loc, scale_tril=tril, seed=flow_key)
        return self._fit(start, name, flow_key, weigh_key, taken)

    def _fit(
        self, start: AbstractSampler, name: str, key: PRNGKeyArray, weigh_key: PRNGKeyArray, *taken: str
    ) -> Posterior:
        """Fit a flow; further where nobody said how long, and its weights or its raw draws are not good."""
        first_key, second_key = split_on_host(key, 2)
        fit = {k: self.settings[k] for k in ("n_draws", "learning_rate", "batch_size")}
        process = flow_process(self.target, **fit, mesh=self.mesh)
        rehearsed = ahead(lambda: rehearse(start, self.target))
        rung = flow_rung(process, start, name, first_key, self.budget, steps=self.settings["steps"] or _STEPS)
        rehearsed()
        posterior = self._finish(rung, weigh_key, *taken, rung.sentence)
        verdict = posterior.verdict
        good = verdict.raw_ok and verdict.khat < _FLOW_KHAT and _share(verdict) > _SHARE
        if good or self.settings["steps"] or rung.failed or self.budget.is_over:
            return posterior
        more = flow_rung(process, rung.flow, f"{name}, further", second_key, self.budget, steps=_FURTHER_STEPS)
        history = {k: np.concatenate([rung.history[k], more.history[k]]) for k in rung.history}
        return self._finish(more._replace(history=history), weigh_key, *taken, rung.sentence, more.sentence)

    def _finish(self, rung: Rung, weigh_key: PRNGKeyArray, *taken: str) -> Posterior:
        return make_posterior(
            rung.flow,
            self.target,
            seed=weigh_key,
            dtype=self.settings["dtype"],
            trace={"step": np.arange(len(rung.history["elbo"])), "elbo": rung.history["elbo"]},
            settings=self.settings,
            steps_taken=taken,
            failed=rung.failed,
        )
