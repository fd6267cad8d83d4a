"""The rungs, lowest first: when each is climbed, what it does, and when it is enough."""

import abc
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from thalweg._core import PRNGKeyArray, numpy_rng, split_on_host
from thalweg.bijections import AffineTransformer, Chain, Coupling, Elementwise, FixedAffine, SinhArcsinhTransformer
from thalweg.distributions import Mixture, Transformed
from thalweg.fit import Fit
from thalweg.flows import make_flow
from thalweg.ladder._ascent import FURTHER_STEPS, STEPS, Ascent, Look, is_fair, is_good
from thalweg.ladder._axes import independent_axes
from thalweg.ladder._fits import MANY, Reached, affine_weights, fit_flow, fit_gaussians
from thalweg.ladder._governors import Governors
from thalweg.ladder._mixture import weigh_components
from thalweg.ladder._modes import Mode
from thalweg.ladder._powers import Powers, base_of
from thalweg.ladder._tempered import temper
from thalweg.objectives import ForwardKL
from thalweg.posterior import Posterior, charts_of, follow, metric_of
from thalweg.targets import find_start

_MOST_MOVED = 6.0
"""The log of how much those that govern may widen or narrow others: a hierarchy's neck is far narrower than its mouth.
"""


class AbstractRung(abc.ABC):
    """One way to a posterior.

    Attributes:
        name: for the record of what each is worth.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def is_due(self, ascent: Ascent) -> bool:
        """Whether to climb it, since nothing below was enough."""

    @abc.abstractmethod
    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """The posterior, or None where it is not worth keeping. Says in `ascent` what was done."""

    def is_enough(self, posterior: Posterior) -> bool:
        """Whether to stop here."""
        return posterior.verdict.ok


class BestGaussian(AbstractRung):
    """The best full-rank Gaussian, twice looked at: one lucky set of weights is not enough.

    Of many coordinates it is what chains go on from.
    """

    name = "Gaussian"

    def is_due(self, ascent: Ascent) -> bool:
        """Unless there are modes apart."""
        return not ascent.has_modes

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Weigh it."""
        return _weigh_gaussian(ascent, key)

    def is_enough(self, posterior: Posterior) -> bool:
        """Fair weights."""
        return is_fair(posterior)


def _weigh_gaussian(ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
    """The best Gaussian's posterior; by NumPy first: most that are not good are seen so in a moment."""
    look = Look.at(affine_weights(ascent.target, ascent.modes.gaussians[0], numpy_rng(key)))
    if not look.is_fair and not ascent.budget.is_over and ascent.target.size <= MANY:
        ascent.add(str(look))
        return None
    ascent.alone = ascent.finish(ascent.best_gaussian())
    if is_fair(ascent.alone) or ascent.budget.is_over or ascent.target.size > MANY:
        return ascent.alone
    return ascent.drop(ascent.alone)


class NonCentred(AbstractRung):
    """The best Gaussian where parameters are measured from what they are drawn around, in units of its scale.

    Where data say little of a group, its parameter lies in a funnel, which this unrolls; where they say much, it makes
    one. The higher ELBO tells which; the rungs above go on from there. Source: Papaspiliopoulos et al. 2007.
    """

    name = "non-centred Gaussian"
    worth: ClassVar[float] = 0.5
    """Nats of the ELBO that are."""

    def is_due(self, ascent: Ascent) -> bool:
        """Where the model tells what they are drawn around, unless there are modes apart."""
        return not ascent.has_modes and ascent.target.noncentred is not None

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Fit it from where the other ended, and weigh it if it is better."""
        start_key, fit_key, weigh_key = split_on_host(key, 3)
        here, there = ascent.target, ascent.target.noncentred
        if there is None:
            return None
        at = jnp.asarray(ascent.modes.gaussians[0].loc, jnp.result_type(float))
        try:
            starts = find_start(there, start_key, here.constrain(at)[0])
        except ValueError:
            ascent.add("non-centred there is nowhere to start")
            return None
        modes, gaussian = fit_gaussians(there, starts, fit_key, ascent.budget, kind="non-centred")
        if not modes.elbo[0] > ascent.modes.elbo[0] + self.worth:
            ascent.add(f"non-centred it is not better (ELBO {modes.elbo[0]:.2f})")
            return None
        ascent.move(there, modes, gaussian)
        return _weigh_gaussian(ascent, weigh_key)

    def is_enough(self, posterior: Posterior) -> bool:
        """Fair weights."""
        return is_fair(posterior)


class HeavyTails(AbstractRung):
    r"""An affine map of Student-t's whose tails fall as the target's do, where those fall as a power of the distance.

    Layers that are linear far out cannot make them of a lighter base. Source: Laszkiewicz, Lederer and Fischer 2022.
    """

    name = "heavy tails"
    better: ClassVar[float] = 1.5
    """Times the effective draws of the Gaussian: before any fit it was 2.4 to 80 where tails were all there was."""

    def is_due(self, ascent: Ascent) -> bool:
        """Unless there are modes apart, or so many coordinates that chains are sooner right."""
        return not ascent.has_modes and ascent.target.size <= MANY

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Look far out; fit it if tails are heavy, and weights are better by them before any fit."""
        look_key, fit_key = split_on_host(key, 2)
        target, gaussian, rng = ascent.target, ascent.modes.gaussians[0], numpy_rng(look_key)
        degrees = Powers.of(target, gaussian, rng).degrees()
        if degrees is None:
            return None
        heavy, light = (Look.at(affine_weights(target, gaussian, rng, nu)) for nu in (degrees, None))
        if not heavy.share > self.better * light.share:
            return None
        affine = make_flow("gaussian", target.size, **gaussian.parameters).bijection
        base = base_of(degrees, target.size)
        return ascent.fit(Transformed(base, affine), "of Student-t's with the log density's tails", fit_key)

    def is_enough(self, posterior: Posterior) -> bool:
        """Fair weights."""
        return is_fair(posterior)


class Flow(AbstractRung):
    """A flow on top of the best Gaussian, by path gradients; for longer where its weights are not good.

    Of many coordinates the Gaussian stays as it is, in coordinates of which those that govern the spread of others, as
    the scale of a hierarchy does, move these through a network of their own: `Governors`.
    """

    name = "flow"
    most: ClassVar[int] = 4096
    """Coordinates beyond which matrices of them take too much memory."""

    def is_due(self, ascent: Ascent) -> bool:
        """Unless there are modes that it would not find, or too many coordinates."""
        unseen = ascent.alone is not None and ascent.alone.verdict.missed_mode and ascent.modes.far
        return not ascent.has_modes and not unseen and ascent.target.size <= self.most

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Fit it."""
        start_key, fit_key = split_on_host(key, 2)
        size, gaussian = ascent.target.size, ascent.modes.gaussians[0]
        if size <= MANY:
            start = make_flow(ascent.richer, size, **gaussian.parameters, seed=start_key)
            return ascent.fit(start, ascent.richer, fit_key)
        found = ascent.fit(_of_many(ascent, gaussian, start_key), ascent.richer, fit_key)
        before = ascent.found.get(BestGaussian.name)
        # where there are few effective draws their number is chance: chains go on from the higher ELBO
        if before and before.elbo and found.elbo and found.elbo.value > before.elbo.value:
            ascent.found.pop(BestGaussian.name)
        return found


def _of_many(ascent: Ascent, gaussian: Mode, key: PRNGKeyArray) -> Transformed:
    """A flow that starts as a Gaussian, which stays, with a layer of what those that govern do to the rest.

    They have tails of their own: the log of a hierarchy's scale falls into the neck as an exponential does.
    """
    plain_key, own_key, look_key = split_on_host(key, 3)
    target, size = ascent.target, ascent.target.size
    plain = make_flow(ascent.richer, size, seed=plain_key)
    layers, matrix = [plain.bijection.bijections[0]], gaussian.scale_tril
    governors = Governors.of(target, gaussian, numpy_rng(look_key), ascent.budget.limit)
    if governors is not None:
        first, matrix = len(governors.which), governors.matrix
        moved = AffineTransformer(max_log_scale=_MOST_MOVED)
        layers.append(Elementwise(size, SinhArcsinhTransformer(), first=first))
        layers.append(Coupling(size, moved, first=first, width=32, depth=1, seed=own_key))
    return Transformed(plain.base, Chain([*layers, FixedAffine(gaussian.loc, matrix)]))


class Refit(AbstractRung):
    """The flow again, drawn over mass that it left out: chains from its corrected draws find it, forward KL covers it.

    By turns, 2,000 particles follow the log density in the draws' metric and in the flow's own coordinates, and the
    flow is fitted to the reverse KL plus a share of the forward KL from them: the one loses no precision where the flow
    is, the other cannot pass over what it lacks. Sources: Gabrie et al. 2022 (chains and flow by turns); Midgley et al.
    2023 (mass-covering fits to draws led from the flow).

    Args:
        after: the rungs whose flows it may begin with.
    """

    name = "refit"
    turns: ClassVar[int] = 8
    between_looks: ClassVar[int] = 2
    particles: ClassVar[int] = 2000
    rounds: ClassVar[int] = 16
    steps: ClassVar[int] = 300
    a_step: ClassVar[int] = 256
    slower: ClassVar[float] = 0.3

    def __init__(self, *after: type[AbstractRung]) -> None:
        self._after = {rung.name for rung in after}

    def is_due(self, ascent: Ascent) -> bool:
        """Where weights cannot be trusted, of a flow with a map of its own that the reverse KL could be followed for.

        A mode apart is not found by its draws; of many coordinates chains are sooner right.
        """
        flow = ascent.best(self._after)
        return (
            flow is not None
            and not ascent.ran_off
            and not flow.verdict.missed_mode
            and flow.log_weights is not None
            and isinstance(flow.flow, Transformed)
            and ascent.target.size <= MANY
        )

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Turn by turn, until it is trusted."""
        posterior, target, budget = ascent.best(self._after), ascent.target, ascent.budget
        if posterior is None:
            return None
        draw_key, *turn_keys = split_on_host(key, 1 + self.turns)
        u = posterior.resample_unconstrained(self.particles, seed=draw_key).astype(float)
        shares, flow, best, elbo = np.full(len(u), 1 / len(u)), posterior.flow, posterior, []
        steps = ascent.settings["steps"] or self.steps
        ascent.say("")
        for i, turn_key in enumerate(turn_keys):
            rng, seen = numpy_rng(turn_key), []
            for chart in charts_of(flow, target, u, shares):
                u = follow(chart, u, rng, self.rounds)
                seen.append(u)
            covering = ForwardKL(np.concatenate(seen), batch_size=self.a_step)
            process = ascent.process(ascent.richer, covering, slower=self.slower)
            reached = fit_flow(process, flow, f"refit {i + 1}", turn_key, budget, steps=steps)
            flow, over = reached.flow, budget.is_over or bool(reached.failed) or i + 1 == self.turns
            elbo.append(reached.history["elbo"])
            if (i + 1) % self.between_looks and not over:
                continue
            ascent.steps_taken[-1] = (
                f"refit: {len(u):,} particles followed the log density from the flow's draws, and the flow was fitted "
                f"to them too, by turns ({i + 1})"
            )
            history = {"elbo": np.concatenate(elbo)}
            best = ascent.finish(reached._replace(history=history))
            if best.verdict.ok or over:
                break
        return best


class Chains(AbstractRung):
    """Markov chains that go on from a flow (`Posterior.refine`).

    Args:
        after: the rungs whose flows they may go on from.
    """

    name = "chains"
    chains: ClassVar[int] = 64
    """Many at once: a step of 64 takes twice the time of 16."""

    def __init__(self, *after: type[AbstractRung]) -> None:
        self._after = {rung.name for rung in after}

    def is_due(self, ascent: Ascent) -> bool:
        """Where weights cannot be trusted; chains begun at a flow's draws do not find a mode that it leaves out."""
        flow = ascent.best(self._after)
        return flow is not None and not flow.verdict.missed_mode and flow.log_weights is not None

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Run them; kept if they are trusted."""
        flow, budget = ascent.best(self._after), ascent.budget
        if flow is None:
            return None
        refined = flow.refine(chains=self.chains, seed=key, budget=budget.limit, progress=budget.progress)
        ascent.say(refined.steps_taken[-1])
        return refined if refined.verdict.ok else ascent.drop(refined)


class GaussianEachMode(AbstractRung):
    """A mixture of Gaussians, one a mode, weights by importance."""

    name = "mixture of Gaussians"

    def is_due(self, ascent: Ascent) -> bool:
        """Where there are modes."""
        return len(ascent.modes.elbo) > 1

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Weigh the parts, then the whole."""
        parts = [make_flow("gaussian", ascent.target.size, **m.parameters) for m in ascent.modes.gaussians]
        mixture = weigh_components(Mixture(parts), ascent.target, key)
        ascent.say(f"a mixture of {len(parts)} Gaussians, one a mode, weights by importance")
        return ascent.finish(ascent.gaussian._replace(flow=mixture))

    def is_enough(self, posterior: Posterior) -> bool:
        """Good weights."""
        return is_good(posterior)


class FlowEachMode(AbstractRung):
    """A mixture of flows, each fitted on top of a mode's Gaussian."""

    name = "mixture of flows"
    most: ClassVar[int] = 8
    """Fitted one by one; beyond, one flow learns all modes."""

    def is_due(self, ascent: Ascent) -> bool:
        """Where there are a few modes: flows on top of some do not make up for others."""
        return 1 < len(ascent.modes.elbo) <= self.most and not ascent.gaussian.missed

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Fit each, weigh them, then the whole."""
        modes, size = ascent.modes.gaussians, ascent.target.size
        weigh_key, start_key, *flow_keys = split_on_host(key, len(modes) + 2)
        name, process, each = ascent.richer, ascent.process(ascent.richer), []
        steps = ascent.settings["steps"] or STEPS
        for k, (mode, flow_key) in enumerate(zip(modes, flow_keys, strict=True)):
            start = make_flow(name, size, **mode.parameters, seed=start_key)
            each.append(fit_flow(process, start, f"{name}, mode {k + 1}", flow_key, ascent.budget, steps=steps))
        mixture = weigh_components(Mixture([r.flow for r in each]), ascent.target, weigh_key)
        ascent.say(f"a mixture of {len(modes)} flows {name}, each fitted from a mode's Gaussian, weights by importance")
        history = {k: np.concatenate([r.history[k] for r in each]) for k in each[0].history}
        failed = next((r.failed for r in each if r.failed), None)
        return ascent.finish(Reached(mixture, history, ascent.steps_taken[-1], failed))


class Particles(AbstractRung):
    """A flow that learns from particles led to all modes; where that is not enough, it settles by reverse KL."""

    name = "particles"
    most_parameters: ClassVar[int] = 200
    """Of more their own covariance says too little."""
    steps: ClassVar[int] = 2000
    a_step: ClassVar[int] = 512
    learning_rate: ClassVar[float] = 5e-3
    slower: ClassVar[float] = 0.2
    """Of the learning; and how much slower the flow settles: it covers all modes, and should not lose them."""

    def is_due(self, ascent: Ascent) -> bool:
        """Where there are modes."""
        return len(ascent.modes.elbo) > 1 and ascent.target.size <= self.most_parameters

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Lead particles, learn from them, settle."""
        particle_key, axes_key, start_key, learn_key, settle_key = split_on_host(key, 5)
        size, budget, steps = ascent.target.size, ascent.budget, ascent.settings["steps"]
        particles, sentence = temper(ascent.target, ascent.modes, particle_key, budget)
        ascent.say(sentence)
        tril = metric_of(particles, np.full(len(particles), 1 / len(particles)))
        axes = independent_axes(np.linalg.solve(tril, (particles - particles.mean(0)).T).T, numpy_rng(axes_key))
        start = make_flow("spline", size, loc=particles.mean(0), scale_tril=tril, axes=axes, seed=start_key)
        learning = Fit(ForwardKL(particles, batch_size=self.a_step), learning_rate=self.learning_rate)
        name, many = "spline, from particles", steps or self.steps
        reached = fit_flow(learning, start, name, learn_key, budget, steps=many, quantity="mean log q")
        ascent.say(reached.sentence)
        learnt = ascent.finish(reached)
        if learnt.verdict.ok or budget.is_over:
            return learnt
        process, many = ascent.process("spline", slower=self.slower), steps or FURTHER_STEPS
        reached = fit_flow(process, reached.flow, "spline, settling", settle_key, budget, steps=many)
        ascent.say(reached.sentence)
        # that may lose a mode again
        settled = ascent.finish(reached)
        return settled if settled.verdict.ok or settled.verdict.ess > learnt.verdict.ess else learnt


class GaussianAgain(AbstractRung):
    """The best Gaussian, weighed once more: a flow can be worse than what it began as."""

    name = "Gaussian again"

    def is_due(self, ascent: Ascent) -> bool:
        """Where nothing else was trusted."""
        return not ascent.has_modes and not any(p.verdict.ok for p in ascent.found.values())

    def climb(self, ascent: Ascent, key: PRNGKeyArray) -> Posterior | None:
        """Weigh it."""
        if ascent.alone is None:
            ascent.add("nothing is trusted so far, so the Gaussian was weighed again")
            ascent.alone = ascent.finish(ascent.best_gaussian())
        return ascent.alone if is_good(ascent.alone) or not ascent.found else None


RUNGS: tuple[AbstractRung, ...] = (
    BestGaussian(),
    NonCentred(),
    HeavyTails(),
    Flow(),
    Refit(Flow),
    Chains(BestGaussian, NonCentred, Flow, Refit),
    GaussianEachMode(),
    FlowEachMode(),
    Chains(FlowEachMode),
    Particles(),
    Chains(Particles),
    GaussianAgain(),
)
