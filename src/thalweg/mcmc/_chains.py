"""Many chains at once: proposals from a flow, or Hamiltonian ones in its latent space."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Count, PRNGKeyArray, Scalar, count, requirement, wide_jit
from thalweg.distributions import AbstractSampler, Transformed
from thalweg.mcmc._blackjax import (
    Proposal,
    Tuning,
    start_hamiltonian,
    start_independence,
    step_hamiltonian,
    step_independence,
    tune_hamiltonian,
)
from thalweg.run import AbstractJittedProcess, Limit, Progress, Status, run
from thalweg.targets import Target

_WARM_UP, _THIN = 300, 5


class Bounds(NamedTuple):
    """What bounds a run of chains, and where it speaks.

    Attributes:
        progress: the bar.
        limit: what they may use up.
    """

    progress: Progress
    limit: Limit

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.limit.is_over


class _State(NamedTuple):
    """BlackJAX's states, one a chain; the draws so far, (n, chains, d)."""

    chains: Any
    draws: Array


class AbstractChains(AbstractJittedProcess[_State]):
    """Steps all chains and keeps every `thin`-th state of each."""

    target: eqx.AbstractVar[Target]
    flow: eqx.AbstractVar[Any]
    thin: eqx.AbstractVar[Array]
    records: ClassVar[tuple[str, ...]] = ("elbo", "acceptance", "leaps")
    quick: ClassVar[bool] = False

    def review(
        self, state: _State, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[_State, Status | None]:
        """Chains run on."""
        return state, None

    def _keep(self, state: _State, index: Array, u: Array) -> Array:
        return state.draws.at[index // self.thin].set(u)


class IndependenceChains(AbstractChains):
    """Independence Metropolis-Hastings; exact in the long run for auxiliary flows too, on their extended space."""

    target: Target
    flow: AbstractSampler
    thin: Array
    chunk: int = eqx.field(static=True, default=50)

    def step(self, state: _State, key: PRNGKeyArray, index: Array) -> tuple[_State, dict[str, Scalar]]:
        """One proposal a chain."""

        def propose(key: PRNGKeyArray) -> Proposal:
            return Proposal(*self.flow.sample_and_log_q(key))

        keys = jax.random.split(key, state.draws.shape[1])
        chains, chance = jax.vmap(lambda k, s: step_independence(self.target.log_density, propose, k, s))(
            keys, state.chains
        )
        kept = self._keep(state, index, chains.position.u)
        return _State(chains, kept), {**_told(chains, chance), "leaps": jnp.asarray(chance.size)}

    def evaluations(self, records: dict[str, np.ndarray]) -> Count:
        """One of each proposal."""
        return Count(values=int(records["leaps"].sum()))


class LatentDensity(eqx.Module):
    """The target's density of z, u = f(z): p(f(z)) |det f'(z)|, all but the base's where the flow has learnt p."""

    flow: Transformed
    target: Target

    @property
    def size(self) -> int:
        """The dimension of z."""
        return self.target.size

    @property
    def data(self) -> Any:
        """The target's."""
        return self.target.data

    def log_density(self, z: Array) -> Scalar:
        """At one z."""
        u, log_det = self.flow.bijection.forward_and_log_det(z)
        return self.target.log_density(u) + log_det


class LatentChains(AbstractChains):
    """Hamiltonian Monte Carlo on z of u = f(z), where the target is all but the flow's base."""

    target: Target
    flow: Transformed
    tuning: Tuning
    thin: Array
    chunk: int = eqx.field(static=True, default=10)

    def step(self, state: _State, key: PRNGKeyArray, index: Array) -> tuple[_State, dict[str, Scalar]]:
        """One trajectory a chain."""
        keys = jax.random.split(key, state.draws.shape[1])
        log_density = LatentDensity(self.flow, self.target).log_density
        step = partial(step_hamiltonian, log_density, self.tuning)
        chains, chance, leaps = jax.vmap(step)(keys, state.chains)
        kept = self._keep(state, index, jax.vmap(self.flow.bijection.forward)(chains.position))
        return _State(chains, kept), {**_told(chains, chance), "leaps": leaps.sum()}

    def evaluations(self, records: dict[str, np.ndarray]) -> Count:
        """One of each leapfrog step."""
        return Count(gradients=int(records["leaps"].sum()))


def _told(chains: Any, chance: Array) -> dict[str, Scalar]:
    return {"elbo": chains.logdensity.mean(), "acceptance": chance.mean()}


@wide_jit
def _start_independence(target: Target, u: Array, log_q: Array) -> Any:
    return jax.vmap(lambda *at: start_independence(target.log_density, Proposal(*at)))(u, log_q)


@wide_jit
def _start_latent(flow: Transformed, target: Target, u: Array, key: PRNGKeyArray) -> tuple[Any, Tuning, Array]:
    log_density = LatentDensity(flow, target).log_density
    positions, tuning, leaps = tune_hamiltonian(log_density, jax.vmap(flow.bijection.inverse)(u), key, _WARM_UP)
    return jax.vmap(lambda z: start_hamiltonian(log_density, z))(positions), tuning, leaps


class Chains(NamedTuple):
    """What chains leave, and what it takes to go on.

    Attributes:
        draws: (chains, n, d), in unconstrained coordinates.
        acceptance: the mean chance that a proposal had.
        name: of the run, in the bar.
        process: their steps, of which each `thin`-th is kept.
        state: where they stand.
    """

    draws: np.ndarray
    acceptance: float
    name: str
    process: AbstractChains
    state: Any

    def longer(self, key: PRNGKeyArray, bounds: Bounds) -> "Chains":
        """As many draws of chains twice as long: every other one of these, and as many new ones, twice as far apart."""
        n = self.draws.shape[1]
        process = eqx.tree_at(lambda p: p.thin, self.process, 2 * self.process.thin)
        more = _run(process, self.state, n, n // 2, key, f"{self.name}, longer", bounds)
        return more._replace(draws=np.concatenate([self.draws[:, n % 2 :: 2], more.draws], axis=1), name=self.name)


def _run(
    process: AbstractChains, chains: Any, room: int, n: int, key: PRNGKeyArray, name: str, bounds: Bounds
) -> Chains:
    """Chains of `n` draws, fewer if there is no time; `room` for as many as ever, so that nothing compiles again."""
    n_chains, d = jax.tree.leaves(chains)[0].shape[0], process.target.size
    state, thin = _State(chains, jnp.zeros((room, n_chains, d))), int(process.thin)
    progress, limit = bounds
    found = run(process, state, key, steps=n * thin, name=name, progress=progress, limit=limit, quantity="log p")
    kept = len(found.history["acceptance"]) // thin
    draws = np.swapaxes(np.asarray(found.state.draws)[:kept], 0, 1)
    return Chains(draws, float(found.history["acceptance"].mean()), name, process, found.state.chains)


def independence_chains(
    flow: AbstractSampler,
    target: Target,
    start: tuple[np.ndarray, np.ndarray],
    n: int,
    key: PRNGKeyArray,
    bounds: Bounds,
) -> Chains:
    r"""Independence Metropolis-Hastings: a draw u' of the flow is taken with chance min(1, w(u') / w(u)), w = p / q.

    Every fifth state is kept at first. Sources: Tierney 1994; BlackJAX (Cabezas et al. 2024) for the kernel.

    Args:
        flow: what proposes.
        target: what the chains converge to.
        start: points, (chains, d), and log q (or its extended term) there, (chains,).
        n: states to keep of each chain.
        key: of all randomness.
        bounds: its bar and limit.
    """
    chains = _start_independence(target, *map(jnp.asarray, start))
    process = IndependenceChains(target=target, flow=flow, thin=jnp.asarray(_THIN))
    return _run(process, chains, n, n, key, "independence", bounds)


def latent_chains(
    flow: AbstractSampler, target: Target, start: np.ndarray, n: int, key: PRNGKeyArray, bounds: Bounds
) -> Chains:
    r"""NeuTra: Hamiltonian Monte Carlo on z with density p(f(z)) |det f'(z)|, f the flow's map.

    300 trajectories first adapt the step size and the length (ChEES), common to all chains.
    Sources: Hoffman et al. 2019 (NeuTra), 2021 (ChEES); BlackJAX (Cabezas et al. 2024) for kernel and adaptation.

    Args:
        flow: a base pushed through a bijection.
        target: what the chains converge to.
        start: points, (chains, d).
        n: states to keep of each chain.
        key: of all randomness.
        bounds: its bar and limit.

    Raises:
        ValueError: if the flow is not a base pushed through a bijection.
    """
    if not isinstance(flow, Transformed):
        must = 'be a base pushed through a bijection for method="neutra"'
        raise ValueError(requirement("flow", must, type(flow).__name__, 'use method="imh"'))
    tune_key, run_key = jax.random.split(key)
    chains, tuning, leaps = _start_latent(flow, target, jnp.asarray(start), tune_key)
    count(gradients=int(leaps))
    process = LatentChains(target=target, flow=flow, tuning=tuning, thin=jnp.asarray(1))
    return _run(process, chains, n, n, run_key, "latent chains", bounds)
