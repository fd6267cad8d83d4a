"""What rungs fit: Gaussians from many starts, and flows; each fit says what it did."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from thalweg._core import PRNGKeyArray, numpy_rng, split_on_host
from thalweg.distributions import AbstractSampler
from thalweg.fit import CurvatureFit, Fit, GaussianFit, MeanFieldFit, SketchedFit
from thalweg.flows import tail_degrees_of_freedom
from thalweg.ladder._mirror import mirrored
from thalweg.ladder._modes import LEFT_OUT, NATS, Fitted, Mode
from thalweg.ladder._scout import Scouts, send_scouts, send_scouts_between, send_scouts_each, suspects, unseen
from thalweg.ladder._string import is_joined, lead_uphill
from thalweg.objectives import ForwardKL, ReverseKL, Sum
from thalweg.posterior import NOT_LOOKED_FOR
from thalweg.run import Checkpoint, Limit, Progress, Status, run
from thalweg.targets import (
    Sparsity,
    Stack,
    Starts,
    Target,
    is_artefact,
    is_mostly_rounding,
    log_density_of_rows,
    sparsity_of,
)

_N_STARTS, _WIDEST, _WIDER = 3, 10.0, 3.0
_ELSEWHERE, _MORE_ELSEWHERE, _MOST_MODES, _MOST_ROUNDS, _MOST_IDLE = 3, 8, 64, 60, 6
_MOST_IDLE_ALONE = 2
"""Gaussians fitted elsewhere at once, at first and where there are more modes than one; the most modes, rounds, and
rounds in a row that find none, at last where there is one mode."""
_SCOUTS, _FEWER_SCOUTS, _FEW = 512, 128, 20
"""Sent uphill from all over; fewer where there are more coordinates than that. Of two modes in five dimensions, one
with 0.3 of the mass 13 sd away, 128 found both at 12 of 20 seeds, 512 at 19; in 89 dimensions 512 found necks of a
funnel, whose fits took a minute; where starts are few, as of two Gaussian processes, these alone found no mode."""
_QUICK = 50
"""Coordinates up to which a fit is as quick as a look at whether a valley parts two places."""
MANY = 100
"""Coordinates beyond which one Gaussian is fitted at a time: by its curvature, or by sketches of its covariance."""
_FAR_BELOW = 10.0
"""Nats a coordinate by which a fit of each by itself may be worse than the best Gaussian, and go on."""
_FEWEST, _FEWEST_INSIDE = 100, 0.1
"""Draws by which a start's ELBO is judged; the share of them where there is density."""
_SUSPECT = 1e6
"""An ELBO above which the log density may be rounding there: that has no bound."""
_FAR_OFF, _HIGHER = 20.0, 10.0
"""From where a fit began, in any coordinate, and nats above what else is known: what may be an artefact of rounding."""
_ENDS, _WORSE = 20, 1.0
"""A flow whose last steps' median ELBO is this many nats below that of its first ones is dropped."""


_COVERING = 0.3
"""The share of the forward KL beside the reverse one."""


class Budget(NamedTuple):
    """What bounds a fit and where it speaks.

    Attributes:
        limit: what it may use up.
        progress: the bar.
        checkpoint: where the state is kept, or None.
    """

    limit: Limit
    progress: Progress
    checkpoint: Checkpoint | None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.limit.is_over


class Reached(NamedTuple):
    """What a fit leaves.

    Attributes:
        flow: the distribution it reached.
        history: "elbo" and "good", one number a step.
        sentence: what was done.
        failed: a sentence where the fit failed, else None.
        missed: a sentence where there are modes that nothing was fitted to, else None.
    """

    flow: Any
    history: dict[str, np.ndarray]
    sentence: str
    failed: str | None = None
    missed: str | None = None


def _elbo_of_starts(
    target: Target, loc: np.ndarray, tril: np.ndarray, rng: np.random.Generator, n: int = 1000
) -> np.ndarray:
    """The ELBO of each start's Gaussian, from the same standard draws, n in all.

    Of one that reaches beyond a wall, where the density is 0, that of the Gaussian cut off there; -inf where the log
    density is but rounding.
    """
    k, d = loc.shape
    z = rng.standard_normal((max(n // k, _FEWEST), d))
    u = loc[:, None] + np.einsum("sj,kij->ksi", z, tril)
    log_p = log_density_of_rows(target, u.reshape(-1, d)).reshape(k, -1)
    log_q = -0.5 * (z**2).sum(1) - 0.5 * d * np.log(2 * np.pi)
    log_scale = np.log(np.diagonal(tril, axis1=1, axis2=2)).sum(1)
    inside = ~np.isneginf(log_p)
    share = np.maximum(inside.mean(1), 1 / log_p.shape[1])
    elbo = np.where(inside, log_p - log_q, 0).mean(1) / share + np.log(share) + log_scale
    known = inside.mean(1) >= _FEWEST_INSIDE
    for i in np.flatnonzero(elbo > _SUSPECT):
        known[i] &= not is_mostly_rounding(target, u[i])
    return np.where(known, elbo, -np.inf)


def fit_gaussians(
    target: Target,
    starts: Starts,
    key: PRNGKeyArray,
    budget: Budget,
    *,
    steps: int = 500,
    kind: str = "full-rank",
    foresee: Callable[[Mode], None] | None = None,
) -> tuple[Fitted, Reached]:
    """Fit a full-rank Gaussian from every start, the first carefully, boldly and from wide, and keep the best ELBO.

    Then from places uphill of many other points, where there are such that the best one does not reach; where those end
    in other modes, from more such places, until no scout finds another. By all rows of the data: that is no more than
    the weights will ask for, and its steps have no noise at the end. `foresee` is called with the best of the first.

    Returns:
        (the modes that starts ended in, the best first; what was done, its flow None).
    """
    fit_key, judge_key, else_key, *last_keys, scout_key = split_on_host(key, 8)

    begin, sparsity = starts.points[0], None
    if target.size > MANY:
        sparsity = sparsity_of(target, begin, numpy_rng(fit_key))
    gaussians = _Gaussians(target, budget, steps, kind, begin, sparsity)
    elbo, fitted = gaussians.first(starts, fit_key, judge_key)
    if budget.is_over:
        missed = NOT_LOOKED_FOR
    else:
        if foresee is not None:
            foresee(fitted.gaussians[int(fitted.elbo.argmax())])
        scouts = gaussians.real(_first_scouts(target, starts, fitted.modes(), scout_key), fitted.modes())
        fitted, missed = _look_elsewhere(scouts, fitted, gaussians, else_key, last_keys)
    modes = fitted.modes()
    fits = "one fit" if len(fitted.elbo) == 1 else f"the best of {len(fitted.elbo)} fits"
    sentence = f"{kind} Gaussian: ELBO {fitted.elbo.max():.2f} after {len(elbo)} steps, {fits}"
    if modes.far:
        sentence += f", which ended in {len(modes.elbo)} modes"
    return modes, Reached(None, {"elbo": elbo}, sentence, missed=missed)


def _look_elsewhere(
    scouts: Scouts, fitted: Fitted, gaussians: "_Gaussians", key: PRNGKeyArray, last_keys: list[PRNGKeyArray]
) -> tuple[Fitted, str | None]:
    """Fits from where scouts and images lead, until they lead nowhere: (all fits, a sentence on what is left out)."""
    target, budget = gaussians.target, gaussians.budget
    modes, tried = fitted.modes(), np.empty((0, target.size))
    idle = {"images": 0, "scouts": 0}
    for i, round_key in enumerate(split_on_host(key, _MOST_ROUNDS)):
        most_idle = _MOST_IDLE if modes.far else _MOST_IDLE_ALONE
        if len(modes.elbo) >= _MOST_MODES or idle["scouts"] >= most_idle:
            break
        if budget.is_over:
            return fitted, NOT_LOOKED_FOR
        scout_key, fit_key, judge_key = split_on_host(round_key, 3)
        known = modes, gaussians.at_once(modes), tried, gaussians.least(modes)
        further, of, before = np.empty((0, target.size)), "images", len(modes.elbo)
        # those that lead nowhere do not stand in the way of scouts
        if idle["images"] < most_idle // 2:
            further = mirrored(target, modes).elsewhere(*known)
        if not len(further):
            further, of = scouts.elsewhere(*known), "scouts"
        if len(further):
            apart = gaussians.worth_a_fit(further, modes)
            more = gaussians.at(further[apart], f"Gaussian elsewhere {i + 1}", fit_key, judge_key, modes)
            fitted, tried = fitted.joined(more), np.concatenate([tried, further])
            modes = fitted.modes()
        elif modes.far or len(scouts.left_out(modes)):
            ends = scouts.ends[np.isfinite(scouts.log_p)]
            scouts = gaussians.real(send_scouts_between(target, modes, ends, numpy_rng(scout_key)), modes)
        else:
            break
        idle[of] = idle[of] + 1 if len(modes.elbo) == before else 0
    return _look_at_the_rest(scouts, fitted, tried, gaussians, last_keys) if modes.far else (fitted, None)


def _first_scouts(target: Target, starts: Starts, modes: Fitted, key: PRNGKeyArray) -> Scouts:
    """From all over, from draws that are known, and of few coordinates from what looks suspicious."""
    rng, few = numpy_rng(key), target.size <= _FEW
    more = rng.uniform(-2, 2, (max(0, (_SCOUTS if few else _FEWER_SCOUTS) - len(starts.points)), target.size))
    known = np.empty((0, target.size)) if starts.draws is None else starts.draws
    if few:
        known = np.concatenate([known, suspects(target, modes, rng)])
    return send_scouts(target, np.concatenate([starts.points, more]), known)


class _Gaussians(NamedTuple):
    """Fits of Gaussians, from few coordinates all at once, from many one by one.

    Attributes:
        target: the log density.
        budget: what bounds them.
        steps: at most so many each.
        kind: by which a checkpoint tells them apart.
        begin: the first start, (d,).
        sparsity: of the Hessian, where there are many coordinates of which each meets but a few others.
    """

    target: Target
    budget: Budget
    steps: int
    kind: str
    begin: np.ndarray
    sparsity: Sparsity | None

    def first(self, starts: Starts, key: PRNGKeyArray, judge_key: PRNGKeyArray) -> tuple[np.ndarray, Fitted]:
        """From the first starts: (the ELBO by steps, what they reached)."""
        points = starts.points[:1] if self._are_many else _first(starts)
        elbo, fitted = self._fitted("Gaussian start", points, key, judge_key, starts)
        known = fitted.elbo[np.isfinite(fitted.elbo)]
        return elbo, fitted if not len(known) else self._but_artefacts(fitted, known.min())

    def at(self, points: np.ndarray, name: str, key: PRNGKeyArray, judge_key: PRNGKeyArray, modes: Fitted) -> Fitted:
        """From points, (k, d), that are uphill of what is near already, of `modes`."""
        if not len(points):
            return Fitted([], np.empty(0))
        best = float(modes.elbo.max())
        _, fitted = self._fitted(name, points, key, judge_key, least=best - _FAR_BELOW * self.target.size)
        return self._but_artefacts(fitted, best)

    def _but_artefacts(self, fitted: Fitted, known: float) -> Fitted:
        """With an ELBO of -inf for those that rounding alone makes better than what is known."""
        locs = np.stack([g.loc for g in fitted.gaussians])
        # of nothing known anywhere, none is higher
        higher = fitted.elbo - known if np.isfinite(known) else np.zeros(len(locs))
        return fitted._replace(elbo=np.where(self._are_artefacts(locs, higher), -np.inf, fitted.elbo))

    def real(self, scouts: Scouts, modes: Fitted) -> Scouts:
        """But those that ended where rounding alone makes it higher than at the best mode."""
        top = log_density_of_rows(self.target, modes.gaussians[0].loc[None])
        false = self._are_artefacts(scouts.ends, scouts.log_p - top)
        return Scouts.of(scouts.ends, np.where(false, -np.inf, scouts.log_p))

    def _are_artefacts(self, places: np.ndarray, higher: np.ndarray) -> np.ndarray:
        """Of places, (k, d), and by how much each is higher than what is known, (k,)."""
        suspect = (higher > _HIGHER) & (np.abs(places - self.begin).max(axis=1) > _FAR_OFF)
        suspect[suspect] = is_artefact(self.target, self.begin, places[suspect])
        return suspect

    def worth_a_fit(self, points: np.ndarray, modes: Fitted) -> np.ndarray:
        """Which of these, (k,): those from which it is not all the way uphill to the best.

        Where fits take long, those that a valley parts from it, however one bends the way.
        """
        best = modes.gaussians[0]
        if self.target.size <= _QUICK:
            return ~lead_uphill(self.target, points, best.loc, LEFT_OUT)
        ways = [np.stack([best.loc, point]) for point in points]
        return np.array([not is_joined(self.target, way, best.scale_tril, LEFT_OUT) for way in ways])

    def least(self, modes: Fitted) -> float:
        """The log density below which there is next to nothing, were that three times as wide each way as any mode."""
        if not np.isfinite(modes.elbo[0]):
            return -np.inf
        widest = modes.log_volumes(self.target).max() + self.target.size * np.log(_WIDER)
        return float(modes.elbo[0] - NATS - widest)

    def at_once(self, modes: Fitted) -> int:
        """Fitted elsewhere in a round."""
        if self._are_many:
            return 1
        return _MORE_ELSEWHERE if modes.far else _ELSEWHERE

    @property
    def _are_many(self) -> bool:
        return self.target.size > MANY

    def _fitted(
        self,
        name: str,
        points: np.ndarray,
        key: PRNGKeyArray,
        judge_key: PRNGKeyArray,
        first: Starts | None = None,
        least: float = -np.inf,
    ) -> tuple[np.ndarray, Fitted]:
        name = f"{self.kind} {name}"
        scale_tril = first.scale_tril if first else None
        if self._are_many:
            elbo, loc, tril = self._one(name, points[0], scale_tril, key, least)
            return elbo, _judged(self.target, loc[None], tril[None], judge_key)
        process = GaussianFit(self.target, all_careful=first is None)
        state = process.init(points, scale_tril, widest=_WIDEST if first else None)
        result = run(process, state, key, steps=self.steps, name=name, **self._bounds)
        return result.history["elbo"], _judged(self.target, result.state.loc, result.state.scale_tril, judge_key)

    def _one(
        self, name: str, point: np.ndarray, scale_tril: np.ndarray | None, key: PRNGKeyArray, least: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each coordinate by itself first, unless their covariance is known about; then, from `least` on, together."""
        alone_key, key = split_on_host(key, 2)
        if scale_tril is None:
            process = MeanFieldFit(self.target)
            state, steps = process.init(point, 1.0), process.steps
            alone = run(process, state, alone_key, steps=steps, name=f"{name}, each coordinate", **self._bounds)
            point, sd, elbo = alone.state.loc, np.exp(alone.state.log_sd), alone.history["elbo"]
            if len(elbo) and elbo[-1] < least:
                return elbo, point, np.diag(sd)
            scale_tril = np.diag(sd)
        else:
            # given the others, as fits of each coordinate by itself have it
            sd = 1 / np.linalg.norm(np.linalg.inv(scale_tril), axis=0)
        bounds = {"steps": self.steps, "name": name, **self._bounds}
        if self.sparsity is not None:
            curved = CurvatureFit(self.target, self.sparsity)
            result = run(curved, curved.init(point, sd), key, **bounds)
            return result.history["elbo"], result.state.loc, curved.scale_tril(result.state)
        sketched = SketchedFit(self.target)
        result = run(sketched, sketched.init(point, scale_tril), key, **bounds)
        return result.history["elbo"], result.state.loc, result.state.scale_tril

    @property
    def _bounds(self) -> dict[str, Any]:
        return {"progress": self.budget.progress, "checkpoint": self.budget.checkpoint, "limit": self.budget.limit}


def fit_gaussians_each(
    targets: Sequence[Target], starts: Sequence[Starts], key: PRNGKeyArray, budget: Budget, *, steps: int = 500
) -> list[tuple[Fitted, Reached] | None]:
    """`fit_gaussians` for targets that differ in the numbers of their data, the fits and the scouts of all at once.

    None for those where it would not be done yet: a scout, or a symmetry, leads to a place that the best Gaussian does
    not reach.
    """
    stack = Stack(targets)
    fit_key, *judge_keys = split_on_host(key, 1 + len(targets))
    process = GaussianFit(stack)
    each = [process.init(_first(s), s.scale_tril, widest=_WIDEST) for s in starts]
    loc, tril = (np.concatenate([getattr(e, k) for e in each]) for k in ("loc", "scale_tril"))
    state = each[0]._replace(loc=loc, scale_tril=tril)
    bounds = {"progress": budget.progress, "limit": budget.limit}
    result = run(process, state, fit_key, steps=steps, name="Gaussian starts", **bounds)
    scouts = send_scouts_each(stack, [s.points for s in starts])
    done, k, found = len(result.history["elbo"]), len(loc) // len(targets), []
    for i, (target, seen, judge_key) in enumerate(zip(targets, scouts, judge_keys, strict=True)):
        own = result.state._replace(**{n: getattr(result.state, n)[i * k : (i + 1) * k] for n in ("loc", "scale_tril")})
        modes = _judged(target, own.loc, own.scale_tril, judge_key).modes()
        sentence = f"full-rank Gaussian: ELBO {modes.elbo.max():.2f} after {done} steps, the best of {k} fits"
        images = mirrored(target, modes).elsewhere(modes, 1, tried=np.empty((0, target.size)))
        alone = not modes.far and not len(seen.left_out(modes)) and not len(images)
        found.append((modes, Reached(None, result.history, sentence)) if alone else None)
    return found


def _first(starts: Starts) -> np.ndarray:
    """Where the first fits begin: carefully, boldly, carefully, boldly, and from wide."""
    some = np.resize(starts.points, (_N_STARTS, starts.points.shape[1]))
    return np.concatenate([starts.points[:1], some, starts.points[:1]])


def _judged(target: Target, loc: np.ndarray, scale_tril: np.ndarray, key: PRNGKeyArray) -> Fitted:
    elbo = _elbo_of_starts(target, loc, scale_tril, numpy_rng(key))
    gaussians = [Mode(*one) for one in zip(loc, scale_tril, strict=True)]
    return Fitted(gaussians, np.where(np.isnan(elbo), -np.inf, elbo))


def _look_at_the_rest(
    scouts: Scouts, fitted: Fitted, tried: np.ndarray, gaussians: _Gaussians, keys: list[PRNGKeyArray]
) -> tuple[Fitted, str | None]:
    """Twice, fit some of the ends that were not tried: (all fits, a sentence where others may hold much mass)."""
    missed = None
    for i, round_keys in enumerate((keys[:2], keys[2:])):
        modes = fitted.modes()
        left = scouts.elsewhere(modes, len(scouts.ends), tried)
        if not len(left):
            return fitted, None
        some = left[:: -(-len(left) // gaussians.at_once(modes))]
        sample = gaussians.at(some, f"Gaussian, left {i + 1}", round_keys[0], round_keys[1], modes)
        # on a ridge a scout stops anywhere, and what is fitted there is a part of what is known
        held = np.where(sample.not_in(fitted), sample.elbo, -np.inf)
        missed = unseen(scouts, modes, fitted.small, left, held)
        fitted, tried = fitted.joined(sample), np.concatenate([tried, some])
    return fitted, missed


def affine_weights(
    target: Target, gaussian: Mode, rng: np.random.Generator, degrees: np.ndarray | None = None, n: int = 10_000
) -> np.ndarray | None:
    """Log importance weights, up to a constant, of a Student-t in a Gaussian's place, without compiling it.

    Args:
        target: p.
        gaussian: the place and its scale.
        rng: of the draws.
        degrees: of freedom: one number; or (d,) for independent ones; None for those of the flow "gaussian".
        n: how many draws.

    Returns:
        (n,), or None if one is NaN.
    """
    d = target.size
    nu = np.asarray(tail_degrees_of_freedom(d) if degrees is None else degrees)
    z = rng.standard_normal((n, d)) * np.sqrt(nu / rng.chisquare(nu, (n, d) if nu.ndim else (n, 1)))
    if nu.ndim:
        log_q = (-0.5 * (nu + 1) * np.log1p(z**2 / nu)).sum(1)
    else:
        log_q = -0.5 * (nu + d) * np.log1p((z**2).sum(1) / nu)
    log_p = log_density_of_rows(target, gaussian.loc + z @ gaussian.scale_tril.T).astype(float)
    log_weights = log_p - log_q
    return None if np.isnan(log_weights).any() or not np.isfinite(log_weights.max()) else log_weights


def flow_process(
    target: Target,
    covering: ForwardKL | None = None,
    *,
    learning_rate: float,
    n_draws: int,
    batch_size: int | None,
    mesh: Mesh | None,
    quick: bool,
) -> Fit:
    """The fit of a flow by path gradients of the reverse KL, plus a share of `covering`.

    `quick` where it takes few steps, as a `Fit` has it.
    """
    objective = ReverseKL(target, n_draws, path=True, batch_size=batch_size, mesh=mesh)
    if covering is not None:
        objective = Sum((objective, covering), (1.0, _COVERING))
    return Fit(objective, learning_rate=learning_rate, quick=quick)


def fit_flow(
    process: Fit,
    flow: AbstractSampler,
    name: str,
    key: PRNGKeyArray,
    budget: Budget,
    *,
    steps: int,
    quantity: str = "ELBO",
) -> Reached:
    """Fit a flow; `quantity` is what the objective calls "elbo"."""
    result = run(
        process,
        process.init(flow),
        key,
        steps=steps,
        name=f"flow {name}",
        progress=budget.progress,
        checkpoint=budget.checkpoint,
        limit=budget.limit,
        quantity=quantity,
    )
    elbo = result.history["elbo"]
    skipped = int(result.state.n_bad)
    sentence = f"flow {name}: {quantity} {_recent(elbo):.2f} after {len(elbo)} steps; {result.status}"
    if skipped:
        sentence += f"; {skipped} steps were not finite and were skipped"
    failed = str(result.status) if result.status is Status.DIVERGED else None
    if _middle(elbo[-_ENDS:]) < _middle(elbo[:_ENDS]) - _WORSE:
        return Reached(flow, result.history, f"{sentence}; it ended below its start, which is kept", failed)
    return Reached(result.state.model, result.history, sentence, failed)


def _recent(elbo: np.ndarray) -> float:
    last = elbo[-50:]
    return float(np.mean(last[np.isfinite(last)])) if np.isfinite(last).any() else np.nan


def _middle(elbo: np.ndarray) -> float:
    finite = elbo[np.isfinite(elbo)]
    return float(np.median(finite)) if len(finite) else -np.inf
