"""How the rungs are climbed, and what is fitted where a flow is asked for."""

import dataclasses
from typing import Any

import numpy as np
from jax.sharding import Mesh

from thalweg._core import PRNGKeyArray, check_shape, named_on_host, split_on_host
from thalweg.distributions import AbstractSampler
from thalweg.flows import make_flow
from thalweg.ladder._ascent import Ascent
from thalweg.ladder._fits import Budget, Reached, fit_gaussians
from thalweg.ladder._modes import Fitted
from thalweg.ladder._rungs import RUNGS, AbstractRung
from thalweg.posterior import Posterior
from thalweg.targets import Starts, Target


@dataclasses.dataclass(frozen=True)
class Climb:
    """One climb.

    Attributes:
        target: the log density.
        settings: what decides the result, as an `Ascent` has it.
        key: all randomness.
        budget: what bounds it.
        mesh: devices, or None.
        rungs: of "auto".
    """

    target: Target
    settings: dict[str, Any]
    key: PRNGKeyArray
    budget: Budget
    mesh: Mesh | None
    rungs: tuple[AbstractRung, ...] = RUNGS

    def run(
        self, flow: str | AbstractSampler, starts: Starts, begun: tuple[Fitted, Reached] | None = None
    ) -> Posterior:
        """The posterior by "auto", by a flow's name, or by a flow built by hand.

        Args:
            flow: what to fit.
            starts: where to begin.
            begun: the Gaussians, where they have been fitted.

        Raises:
            ValueError: if a flow built by hand has another shape than R^d.
        """
        gauss_key, rungs_key, flow_key, weigh_key = split_on_host(self.key, 4)
        size = self.target.size
        ascent = self._ascent(weigh_key, Fitted([], np.empty(0)), Reached(None, {}, ""), starts)
        if not isinstance(flow, str):
            check_shape("flow", np.empty(flow.shape), (size,), "a flow built by hand is a distribution on R^d")
            return ascent.closed(ascent.fit(flow, self.settings["flow"], flow_key))
        if flow == "auto":
            foresee = ascent.foresee
        else:
            foresee = None
            ascent.prepare(flow)
        modes, gaussian = begun or fit_gaussians(self.target, starts, gauss_key, self.budget, foresee=foresee)
        ascent = self._ascent(weigh_key, modes, gaussian, starts)
        ascent.say(gaussian.sentence)
        if flow == "auto":
            return self._auto(ascent, rungs_key)
        if flow == "gaussian":
            return ascent.closed(ascent.finish(ascent.best_gaussian()))
        start = make_flow(flow, size, **modes.gaussians[0].parameters, seed=flow_key)
        return ascent.closed(ascent.fit(start, flow, flow_key))

    def _ascent(self, weigh_key: PRNGKeyArray, modes: Fitted, gaussian: Reached, starts: Starts) -> Ascent:
        of = self.target, self.settings, self.budget, self.mesh, weigh_key, modes, gaussian
        return Ascent(*of, draws=starts.draws)

    def _auto(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior:
        """The first rung that is enough, else the best of what there is."""
        for rung in self.rungs:
            if (ascent.found and self.budget.is_over) or not rung.is_due(ascent):
                continue
            posterior = rung.climb(ascent, named_on_host(key, rung.name))
            if posterior is None:
                continue
            if rung.is_enough(posterior):
                return ascent.closed(posterior)
            ascent.found[rung.name] = posterior
            ascent.drop(posterior)
        return ascent.closed(ascent.best() or ascent.finish(ascent.best_gaussian()))
