"""The one file that knows BlackJAX: its kernels, for one chain, and its adaptation, for many."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thalweg._core import Array, PRNGKeyArray, Scalar, import_guest

_RATE = 0.02
"""Of Adam on the trajectory's length, as in BlackJAX's own example."""
_LONGEST = 256
"""Leapfrog steps a trajectory."""


class Proposal(NamedTuple):
    """A point with what it was proposed by; what an independence chain is at.

    Attributes:
        u: the point, (d,).
        log_q: log density (or extended term) of the proposal there.
    """

    u: Array
    log_q: Scalar


class Tuning(NamedTuple):
    """What Hamiltonian chains share.

    Attributes:
        step_size: of the leapfrog steps.
        n_steps: the most of them a trajectory, not whole.
    """

    step_size: Scalar
    n_steps: Scalar


class _Leaps(NamedTuple):
    """What is kept of a step of the adaptation: its leapfrog steps."""

    taken: Array


@contextlib.contextmanager
def _as_blackjax_is() -> Iterator[Any]:
    """BlackJAX mixes types and ranks, which a user's strict setting would refuse."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield import_guest("blackjax", "core")


def start_independence(log_density: Callable[[Array], Scalar], at: Proposal) -> Any:
    """The state of an independence chain at a point."""
    with _as_blackjax_is() as blackjax:
        return blackjax.irmh.init(at, lambda proposal: log_density(proposal.u))


def step_independence(
    log_density: Callable[[Array], Scalar], propose: Callable[[PRNGKeyArray], Proposal], key: PRNGKeyArray, state: Any
) -> tuple[Any, Scalar]:
    """(state after one step of independence Metropolis-Hastings, the chance that the proposal had)."""
    with _as_blackjax_is() as blackjax:
        kernel = blackjax.irmh(lambda proposal: log_density(proposal.u), propose, lambda _, there: there.position.log_q)
        state, info = kernel.step(key, state)
        return state, info.acceptance_rate


def start_hamiltonian(log_density: Callable[[Array], Scalar], at: Array) -> Any:
    """The state of a Hamiltonian chain at a point."""
    with _as_blackjax_is() as blackjax:
        return blackjax.dhmc.init(at, log_density, jnp.zeros((), jnp.int32))


def step_hamiltonian(
    log_density: Callable[[Array], Scalar], tuning: Tuning, key: PRNGKeyArray, state: Any
) -> tuple[Any, Scalar, Scalar]:
    """(state after one trajectory, the chance that its end had, how many leapfrog steps it took).

    The lengths are a share of the longest, from a Halton sequence, the same for all chains of a batch: none waits.
    """
    with _as_blackjax_is() as blackjax:
        halton = import_guest("blackjax.mcmc.dynamic_hmc", "core").halton_sequence
        kernel = blackjax.dhmc(
            log_density,
            tuning.step_size,
            jnp.ones_like(state.position),
            next_random_arg_fn=lambda i: i + 1,
            integration_steps_fn=lambda i, longest: jnp.ceil(halton(i, 16) * longest).astype(jnp.int32),
            integration_steps_params=(tuning.n_steps,),
        )
        state, info = kernel.step(key, state)
        return state, info.acceptance_rate, info.num_integration_steps


def tune_hamiltonian(
    log_density: Callable[[Array], Scalar], positions: Array, key: PRNGKeyArray, steps: int
) -> tuple[Array, Tuning, Array]:
    """Move chains while their common step size and trajectory length adapt: ChEES (Hoffman et al. 2021).

    Args:
        log_density: of one point.
        positions: (chains, d).
        key: of all randomness.
        steps: so many trajectories.

    Returns:
        (where they are, (chains, d); the tuning; how many leapfrog steps that took, of all chains together).
    """
    chains, d = positions.shape
    with _as_blackjax_is() as blackjax:
        adam = import_guest("optax", "core").adam(_RATE)
        adaptation = blackjax.chees_adaptation(
            log_density,
            chains,
            max_leapfrog_steps=_LONGEST,
            adaptation_info_fn=lambda _, info, __: _Leaps(info.num_integration_steps),
        )
        (states, found), told = adaptation.run(key, positions, 0.5 * d**-0.25, adam, steps)
        tuning = Tuning(found["step_size"], found["integration_steps_params"][0])
        return states.position, tuning, told.taken.sum()
