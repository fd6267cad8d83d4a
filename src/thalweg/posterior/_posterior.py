"""What every door leads to."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from thalweg._core import (
    Seed,
    as_key,
    check_positive_int,
    numpy_rng,
    one_blas_thread,
    precision,
    requirement,
    split_on_host,
    write_file,
)
from thalweg.diagnostics import SummaryRow, psis, summarise
from thalweg.distributions import AbstractAuxiliaryDistribution, AbstractSampler
from thalweg.mcmc import Bounds
from thalweg.posterior import _draws
from thalweg.posterior._arviz import to_datatree
from thalweg.posterior._citation import CITATION
from thalweg.posterior._estimates import Bound, Estimate, ModeShare
from thalweg.posterior._refine import judge_refined, run_chains
from thalweg.posterior._verdict import Verdict
from thalweg.run import Evaluations, Limit, Progress
from thalweg.targets import AbstractSpace, Target, as_numpyro, log_density_of_rows

Draws = dict[str, np.ndarray]

KIND = "posterior"
SAVED = (
    *("flow", "space", "elbo", "log_evidence", "verdict", "trace", "settings"),
    *("log_weights", "steps_taken", "dtype", "versions", "name", "described", "chains", "modes"),
)
"""What a file keeps: all fields but the target."""
POOL = 10_000
"""Draws weighed for the verdict and the evidence."""
_LEAST_OF_EACH = 4
"""Draws of a chain, without which nothing can be said of it."""
_POOL_FACTOR = 4
"""Draws weighed for each corrected draw."""


@dataclasses.dataclass(frozen=True)
class WeightedDraws:
    """Draws with importance weights: nine in ten the flow's own, the others thrown wider.

    Attributes:
        draws: name -> (n, *shape), constrained.
        log_weights: (n,), Pareto-smoothed and normalised: exp of them sums to 1.
        raw_log_weights: (n,), log p less the log density of the draws, as they are.
        khat: the shape of the weights' tail.
    """

    draws: Draws
    log_weights: np.ndarray
    raw_log_weights: np.ndarray
    khat: float


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """A flow posterior: draws, density, evidence, and a verdict on all of it.

    Raw draws (`sample`) are the flow's own; corrected draws (`resample`) are importance-resampled against the target,
    or once refined come from chains, and are what `summary` and `to_arviz` show. A posterior loaded without its target
    samples and scores, but cannot correct.

    Attributes:
        flow: on R^d; pure, usable inside jit and vmap: `.sample(key, shape)`, `.log_prob(u)`. It computes in JAX's own
            precision: for a float64 posterior turn on jax_enable_x64, as the methods here do by themselves.
        space: the parameters' names and supports, and the map from R^d to them.
        target: the log density, or None.
        elbo: E_q[log p - log q] with its standard error; a lower bound of `log_evidence` (for an auxiliary flow, of
            its own ELBO too).
        log_evidence: log of the integral of exp(log density), with its standard error; None where it is not known.
        verdict: whether to believe it.
        log_weights: (n,), of the draws that the verdict judged, as they are; None where there are none.
        trace: the fit's record, one number a step: "step", "elbo".
        settings: what decided the result.
        steps_taken: what was done, in sentences.
        dtype: "float32" or "float64".
        versions: of the packages that made it.
        name: of the model.
        described: a digest of the data and the log density at a few points, by which `load` knows its target again.
        chains: (chains, n, d), unconstrained draws of the chains that `refine` ran; None before.
        modes: the places apart that starts ended in, with their shares of corrected draws; empty if there is one.
    """

    flow: AbstractSampler
    space: AbstractSpace | None
    target: Target | None
    elbo: Estimate | None
    log_evidence: Estimate | None
    verdict: Verdict
    log_weights: np.ndarray | None
    trace: dict[str, np.ndarray]
    settings: dict[str, Any]
    steps_taken: tuple[str, ...]
    dtype: str
    versions: dict[str, str]
    name: str
    described: dict[str, Any]
    chains: np.ndarray | None = None
    modes: tuple[ModeShare, ...] = ()

    @property
    def names(self) -> list[str]:
        """The parameters' names."""
        return list(self._require_space().names)

    @property
    def citation(self) -> str:
        """BibTeX of this library."""
        return CITATION

    def __repr__(self) -> str:
        """Name, evidence, verdict."""
        return f"<Posterior of {self.name}: log evidence {self.log_evidence}. {self.verdict}>"

    def _require_one_to_one(self, what: str) -> AbstractSpace:
        space = self._require_space()
        if names := space.many_to_one:
            must = f"map one to one for {what}"
            raise ValueError(requirement("target", must, f"Stan's unit vector {names[0]!r}, which forgets a length"))
        return space

    def _require_space(self) -> AbstractSpace:
        if self.space is None:
            raise ValueError(
                "this posterior was saved without its supports, which hold unregistered functions; "
                "give target= to thalweg.load"
            )
        return self.space

    def _require_target(self, what: str) -> Target:
        if self.target is None:
            raise ValueError(f"{what} needs the log density, and this posterior has none; give target= to thalweg.load")
        return self.target

    @property
    def _data(self) -> Any:
        return None if self.target is None else self.target.data

    def _dress(self, u: np.ndarray) -> Draws:
        params = _draws.constrain(self._require_space(), self._data, u)
        return params if self.target is None else {**params, **_draws.derive(self.target, params)}

    def sample(self, n: int, seed: Seed = 0) -> Draws:
        """Raw draws of the flow.

        Args:
            n: how many; the first m of n draws are the m draws of the same seed.
            seed: an int or a JAX key.

        Returns:
            name -> (n, *shape) in constrained space, then the model's deterministic quantities if the target is there.

        Raises:
            ValueError: if n is below 1.
        """
        n = check_positive_int("n", n)
        with precision(self.dtype):
            return self._dress(_draws.draw(self.flow, as_key(seed), n))

    def log_prob(self, draws: dict[str, Any]) -> Any:
        r"""The flow's normalised log density of constrained parameters, $\log q(u) - \log |\det d\theta / du|$.

        Args:
            draws: name -> (n, *shape); other names (deterministic quantities) are passed over.

        Returns:
            (n,); for an auxiliary flow, whose density is only bounded, a `Bound` with a lower array.

        Raises:
            ValueError: if a parameter is missing, has the wrong shape or lies outside its support, or if the map to
                one forgets something, as Stan's to a unit vector does.
        """
        space = self._require_one_to_one("log_prob")
        with precision(self.dtype):
            inside = {k: np.asarray(v) for k, v in draws.items() if k in space.names}
            for name, values in inside.items():
                if values.ndim != len(space.shapes[name]) + 1 or not len(values):
                    must = f"have shape {('n', *space.shapes[name])}, n >= 1".replace("'", "")
                    raise ValueError(requirement(f"draws[{name!r}]", must, values.shape))
            lengths = {len(v) for v in inside.values()}
            if len(lengths) > 1:
                got = ", ".join(f"{len(v)} of {k!r}" for k, v in inside.items())
                raise ValueError(requirement("draws", "have equally many of every parameter", got))
            space.check(inside, self._data)
            u, log_det = _draws.unconstrain(space, self._data, inside)
            log_q = _draws.score(self.flow, u) - log_det
            return Bound(log_q, None) if isinstance(self.flow, AbstractAuxiliaryDistribution) else log_q

    def sample_and_log_prob(self, n: int, seed: Seed = 0) -> tuple[Draws, Any]:
        """Raw draws and their normalised log densities, at the price of the draws; see `sample` and `log_prob`."""
        n = check_positive_int("n", n)
        with precision(self.dtype):
            space = self._require_one_to_one("sample_and_log_prob")
            u, log_q = _draws.draw_and_score(self.flow, as_key(seed), n)
            log_q = log_q - _draws.log_det(space, self._data, u)
            bounded = isinstance(self.flow, AbstractAuxiliaryDistribution)
            return self._dress(u), self.log_prob(self.sample(n, seed)) if bounded else log_q

    def importance_weights(self, n: int = POOL, seed: Seed = 0) -> WeightedDraws:
        """Draws with Pareto-smoothed importance weights (Vehtari et al. 2024).

        Nine in ten are the flow's; the others are wider along one coordinate, which keeps the weights bounded where
        the posterior's tails are heavier than the flow's. The weights account for it.

        Raises:
            ValueError: if there is no target, or its log density is NaN at a draw.
        """
        target = self._require_target("importance_weights")
        n = check_positive_int("n", n)
        with precision(self.dtype):
            weighed = _draws.weigh(self.flow, target, as_key(seed), n)
            raw = _log_weights(weighed, target)
            smoothed = psis(raw)
            return WeightedDraws(self._dress(weighed.u), smoothed.log_weights, raw, float(smoothed.khat))

    def resample(self, n: int, seed: Seed = 0) -> Draws:
        """Corrected draws: importance resampling of four times as many raw ones, with smoothed weights; or the chains'.

        Systematic, then shuffled; where weights are uneven some draws appear more than once. Of a refined posterior
        the chains' draws, shuffled; once all are used they come again.

        Raises:
            ValueError: if n is below 1, or there is no target.
        """
        target = self._require_target("resample")
        n = check_positive_int("n", n)
        with precision(self.dtype):
            return self._dress(self._corrected_rows(target, n, seed))

    def resample_unconstrained(self, n: int, seed: Seed = 0) -> np.ndarray:
        """The draws of `resample` as rows of R^d, (n, d), before the supports and without deterministic quantities."""
        target = self._require_target("resample_unconstrained")
        n = check_positive_int("n", n)
        with precision(self.dtype):
            return self._corrected_rows(target, n, seed)

    def _corrected_rows(self, target: Target, n: int, seed: Seed) -> np.ndarray:
        if self.chains is None:
            return self._resample_rows(target, n, seed)[0].u
        pool = self.chains.reshape(-1, target.size)
        order = numpy_rng(as_key(seed)).permutation(len(pool))
        return pool[np.resize(order, n)]

    def _resample_rows(self, target: Target, n: int, seed: Seed) -> tuple[_draws.WeighedDraws, np.ndarray]:
        """(the chosen draws, their smoothed log weights in the pool)."""
        key = as_key(seed)
        pool = _draws.weigh(self.flow, target, key, max(_POOL_FACTOR * n, _draws.PIECE))
        smoothed = psis(_log_weights(pool, target))
        rng = numpy_rng(key)
        chosen = _systematic(smoothed.log_weights, n, rng)
        return _draws.WeighedDraws(*(a[chosen] for a in pool)), smoothed.log_weights[chosen]

    def predictive(self, n: int, seed: Seed = 0) -> Draws:
        """Replicated data from n corrected draws, name -> (n, *shape); {} where the model cannot."""
        target = self._require_target("predictive")
        with precision(self.dtype):
            params = _draws.constrain(target.space, target.data, self._corrected_rows(target, n, seed))
            return _draws.predict(target, as_key(seed), params)

    def observed(self) -> Draws:
        """The observed data that `predictive` replicates; {} where there are none."""
        return {} if self.target is None else {k: np.asarray(v) for k, v in self.target.observed().items()}

    def summary(self, n: int = POOL, seed: Seed = 0) -> list[SummaryRow]:
        """Mean, sd, quantiles, Monte Carlo error and k-hat of every parameter, weighted (raw without a target).

        Of a refined posterior from all the chains' draws, the error from their effective number.
        """
        if self.chains is not None:
            with precision(self.dtype):
                draws = self._dress(self.chains.reshape(-1, self.chains.shape[-1]))
            return summarise(draws, chains=self.chains.shape[0])
        if self.target is None:
            return summarise(self.sample(n, seed))
        weighted = self.importance_weights(n, seed)
        return summarise(weighted.draws, weighted.log_weights, raw_log_weights=weighted.raw_log_weights)

    def to_arviz(self, n: int = 4000, seed: Seed = 0) -> Any:
        """An ArviZ DataTree: 4 chains of n / 4 corrected draws, and what else there is.

        Groups: posterior; sample_stats (log q, log p, log weight); unconstrained_posterior; raw_posterior (the flow's
        own draws); fit (the trace); and where the model can, posterior_predictive, log_likelihood, observed_data. Of a
        refined posterior the chains as they were, about n of their draws at even distances; no log weight then.

        Raises:
            ValueError: if n is not a positive multiple of 4, or there is no target.
        """
        target = self._require_target("to_arviz")
        if check_positive_int("n", n) % 4:
            raise ValueError(requirement("n", "be a multiple of 4, for 4 chains", n))
        with precision(self.dtype):
            n_chains, u, stats = self._arviz_rows(target, n, seed)
            draws = self._dress(u)
            params = {k: draws[k] for k in self._require_space().names}
            groups = {
                "posterior": draws,
                "sample_stats": stats,
                "unconstrained_posterior": {"u": u},
                "raw_posterior": self.sample(len(u), seed),
                "posterior_predictive": _draws.predict(target, as_key(seed), params),
                "log_likelihood": _draws.pointwise_log_likelihood(target, params),
            }
            # whole numbers in a data file are not discrete data: the model's replicates say what they are
            predicted = groups["posterior_predictive"]
            observed = {k: v.astype(predicted[k].dtype) if k in predicted else v for k, v in self.observed().items()}
            return to_datatree(groups, observed, self.trace, target, self._attributes(), n_chains=n_chains)

    def _arviz_rows(self, target: Target, n: int, seed: Seed) -> tuple[int, np.ndarray, Draws]:
        """(number of chains, their draws one chain after the other, what is known of each)."""
        if self.chains is None:
            chosen, log_weights = self._resample_rows(target, n, seed)
            return 4, chosen.u, {"log_q": chosen.log_q, "lp": chosen.log_p, "log_weight": log_weights}
        n_chains, length, d = self.chains.shape
        kept = np.linspace(0, length - 1, min(length, max(1, n // n_chains))).round().astype(int)
        u = self.chains[:, kept].reshape(-1, d)
        return n_chains, u, {"log_q": _draws.score(self.flow, u), "lp": log_density_of_rows(target, u)}

    def refine(
        self,
        method: str | None = None,
        *,
        n: int = POOL,
        chains: int = 16,
        seed: Seed = 0,
        budget: float | Evaluations | Limit | None = None,
        progress: bool | Progress = True,
    ) -> "Posterior":
        r"""The same posterior with draws from Markov chains, exact in the long run whatever the flow.

        The chains start at corrected draws, and run twice as long again and again until R-hat is at most 1.01 and a
        fifth of their draws, or 2000, are effective; 32 times as long at most. Their draws are then what `resample`,
        `summary` and `to_arviz` give; the verdict rests on R-hat and effective sizes, the evidence (for a flow with a
        density) on the bridge between the flow's draws and theirs.

        Args:
            method: "imh", independence Metropolis-Hastings with the flow as proposal: cheap, for a flow that covers the
                posterior; "neutra", Hamiltonian Monte Carlo in the flow's latent space: for one that covers it badly.
                None for "neutra" where the flow is a base pushed through a bijection, else "imh".
            n: draws to keep, of all chains together; at least 4 of each.
            chains: how many, at least 2: R-hat compares them.
            seed: an int or a JAX key.
            budget: seconds for the chains, or `Evaluations(n)` of the log density; None for no bound.
            progress: whether to draw a bar on standard error, or a bar that is there already.

        Raises:
            ValueError: for an unknown method, a budget that is not positive, a flow that it cannot use, or a posterior
                without its target.
            Interrupted: (a KeyboardInterrupt) on a signal.

        Sources: Tierney 1994 (imh); Hoffman et al. 2019 (neutra), 2021 (its adaptation); Meng and Wong 1996 (bridge).
        """
        target = self._require_target("refine")
        chains = check_positive_int("chains", chains, 2)
        n = check_positive_int("n", n, _LEAST_OF_EACH * chains)
        limit = Limit.of(budget)
        bar_of = contextlib.nullcontext(progress) if isinstance(progress, Progress) else Progress(show=progress)
        with precision(self.dtype), one_blas_thread(), bar_of as bar:
            start_key, run_key, judge_key = split_on_host(as_key(seed), 3)
            start, _ = self._resample_rows(target, chains, start_key)
            found = run_chains(self.flow, target, start, method, -(-n // chains), run_key, Bounds(bar, limit))
            verdict, evidence = judge_refined(self.flow, target, found, self.verdict, judge_key)
        return dataclasses.replace(
            self,
            chains=found.chains.draws,
            verdict=verdict,
            log_evidence=evidence or self.log_evidence,
            steps_taken=(*self.steps_taken, found.sentence),
        )

    def to_numpyro(self) -> Any:
        """The flow as a NumPyro distribution on R^d: this posterior as the next model's prior.

        Its draws are unconstrained; its `constrain` makes the dict of parameters of one:
        `params = earlier.constrain(numpyro.sample("earlier", earlier))`. It is the flow itself, without weights: see
        `verdict.raw_ok`. What new data pull into its tails rests on these: give `infer` a flow that bends
        ("realnvp"), since "auto" stops at a Gaussian whose weights are even.

        Raises:
            ValueError: for an auxiliary flow, whose density is only bounded.
            ImportError: without numpyro.
        """
        if isinstance(self.flow, AbstractAuxiliaryDistribution):
            got = f"{type(self.flow).__name__}, whose density is only bounded"
            raise ValueError(requirement("flow", "have a density for to_numpyro", got))
        return as_numpyro(self.flow, self._require_space(), self._data)

    def _attributes(self) -> dict[str, Any]:
        evidence = self.log_evidence
        return {
            "inference_library": "thalweg",
            "inference_library_version": self.versions.get("thalweg", ""),
            "verdict": str(self.verdict),
            "khat": self.verdict.khat,
            **(
                {} if evidence is None else {"log_evidence": evidence.value, "log_evidence_se": evidence.standard_error}
            ),
        }

    def save(self, path: str | Path) -> Path:
        """Write a `.thalweg` file (safetensors and JSON, no pickle), whole or not at all; `thalweg.load` reads it.

        Raises:
            ValueError: if the flow holds a class or function that is not registered.
            OSError: if the file cannot be written.
        """
        record = {name: getattr(self, name) for name in SAVED}
        try:
            return write_file(path, KIND, record)
        except ValueError:
            # supports with unregistered functions: then `load` asks for the target
            return write_file(path, KIND, {**record, "space": None})


def _log_weights(weighed: _draws.WeighedDraws, target: Target) -> np.ndarray:
    raw = weighed.log_weights
    complaint = complaint_of(raw, weighed.u, target)
    if complaint:
        raise ValueError(f'{complaint}; mend that, or infer with dtype="float64"')
    return raw


def complaint_of(raw: np.ndarray, u: np.ndarray, target: Target) -> str | None:
    """A sentence where weights are NaN or +inf, or all are zero; None where all is well."""
    lost = ~np.isfinite(u)
    if lost.any():
        names = ", ".join(f"`{n}`" for n, where in target.space.slices.items() if lost[:, where].any())
        return (
            f"{np.any(lost, axis=1).sum():,} of {len(u):,} draws are not finite in {names}: the fit ran off there, as "
            "it does where the density does not fall off (a parameter without a prior that the data do not speak of)"
        )
    wrong = np.isnan(raw) | (raw == np.inf)
    if wrong.any():
        where = target.space.describe(jnp.asarray(u[np.argmax(wrong)]), target.data)
        return f"the log density is NaN or infinite at {wrong.sum():,} of {len(raw):,} draws, for one at {where}"
    if not np.isfinite(raw).any():
        return (
            f"the log density is -inf at every draw, for one at {target.space.describe(jnp.asarray(u[0]), target.data)}"
        )
    return None


def _systematic(log_weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of n draws: each appears floor or ceil of n times its weight; then shuffled."""
    ladder = np.cumsum(np.exp(log_weights))
    steps = (rng.random() + np.arange(n)) / n * ladder[-1]
    return rng.permutation(np.minimum(np.searchsorted(ladder, steps), len(log_weights) - 1))
