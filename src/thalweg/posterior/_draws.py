"""Draws of a flow pushed through the target, in pieces of one size so that nothing recompiles for another n."""

from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import (
    Array,
    PRNGKeyArray,
    PyTree,
    as_key,
    from_numpy,
    in_pieces,
    quick_jit,
    quick_rows_jit,
    split_on_host,
)
from thalweg.bijections import TriangularAffine
from thalweg.diagnostics import all_but_even
from thalweg.distributions import (
    AbstractAuxiliaryDistribution,
    AbstractDistribution,
    AbstractSampler,
    DefensiveDraws,
    Transformed,
    defensive_draws,
)
from thalweg.mcmc import LatentDensity
from thalweg.targets import AbstractSpace, Target, log_density_of_rows, value_and_score_of_rows

PIECE = 1000
"""Draws a call."""
_DEFENSIVE = 0.1
"""Share of the draws that are thrown wide."""


class WeighedDraws(NamedTuple):
    """Draws on R^d with what weights need.

    Attributes:
        u: (n, d).
        log_proposal: (n,), the log density that they were drawn with, q's own but for a defensive part.
        log_q: (n,), the flow's; exact or extended.
        log_p: (n,), the target's.
    """

    u: np.ndarray
    log_proposal: np.ndarray
    log_q: np.ndarray
    log_p: np.ndarray

    @property
    def log_weights(self) -> np.ndarray:
        """(n,), in float64."""
        return np.asarray(self.log_p, float) - np.asarray(self.log_proposal, float)

    @property
    def are_even(self) -> bool:
        """Whether they all but are, as draws of the target itself would be."""
        raw = self.log_weights
        return not np.isnan(raw).any() and bool(np.isfinite(raw.max())) and all_but_even(raw)


@quick_jit
def _draw_piece(flow: AbstractSampler, key: PRNGKeyArray, share: Array) -> DefensiveDraws:
    return defensive_draws(flow, key, PIECE, share)


@quick_rows_jit
def _score_rows(flow: AbstractSampler, u: Array) -> Array:
    if isinstance(flow, AbstractAuxiliaryDistribution):
        return flow.log_prob_bounds(0, u).lower
    if isinstance(flow, AbstractDistribution):
        return flow.log_prob(u)
    raise TypeError(f"{type(flow).__name__} is neither an exact nor an auxiliary distribution")


@quick_rows_jit
def _push_rows(flow: Transformed, z: Array) -> Array:
    return jax.vmap(flow.bijection.forward)(z)


@quick_rows_jit
def _pull_rows(flow: Transformed, u: Array) -> Array:
    return jax.vmap(flow.bijection.inverse)(u)


@quick_rows_jit
def _constrain_rows(space: AbstractSpace, data: PyTree, u: Array) -> dict[str, Array]:
    return jax.vmap(lambda one: space.constrain(one, data)[0])(u)


@quick_rows_jit
def _log_det_rows(space: AbstractSpace, data: PyTree, u: Array) -> Array:
    return jax.vmap(lambda one: space.constrain(one, data)[1])(u)


@quick_rows_jit
def _unconstrain_rows(space: AbstractSpace, data: PyTree, draws: dict[str, Array]) -> tuple[Array, Array]:
    def one(params: dict[str, Array]) -> tuple[Array, Array]:
        u = space.unconstrain(params, data)
        return u, space.constrain(u, data)[1]

    return jax.vmap(one)(draws)


def _nothing(*_: Any) -> dict[str, Array]:
    return {}


@quick_rows_jit
def _derive_rows(target: Target, params: dict[str, Array]) -> dict[str, Array]:
    return target.each(lambda one: (target.deterministic or _nothing)(one, target.data))(params)


@quick_rows_jit
def _predict_rows(target: Target, key: PRNGKeyArray, numbered: tuple[Array, dict[str, Array]]) -> dict[str, Array]:
    number, params = numbered
    keys = jax.random.split(jax.random.fold_in(key, number[0] // PIECE), len(number))
    return target.each(lambda at: (target.predictive or _nothing)(*at, target.data))((keys, params))


@quick_rows_jit
def _likelihood_rows(target: Target, params: dict[str, Array]) -> Any:
    return target.each(lambda one: (target.log_likelihood or _nothing)(one, target.data))(params)


def _draw(flow: AbstractSampler, key: PRNGKeyArray, n: int, *, defensive: float) -> list[np.ndarray]:
    """Draws, log densities that they were drawn with, the flow's; one program whatever the defensive share."""
    share = from_numpy(np.asarray(defensive, jnp.result_type(float)))
    # on the host, where the first keys are the same however many there are, and nothing compiles
    pieces = [_draw_piece(flow, own, share) for own in split_on_host(key, -(-n // PIECE))]
    return [np.concatenate([np.asarray(part) for part in parts])[:n] for parts in zip(*pieces, strict=True)]


def draw(flow: AbstractSampler, key: PRNGKeyArray, n: int) -> np.ndarray:
    """N draws on R^d; the first m of n draws are the m draws of the same key."""
    return draw_and_score(flow, key, n)[0]


def draw_and_score(flow: AbstractSampler, key: PRNGKeyArray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """As `draw`, with log q."""
    u, _, log_q = _draw(flow, key, n, defensive=0.0)
    return u, log_q


def weigh(flow: AbstractSampler, target: Target, key: PRNGKeyArray, n: int) -> WeighedDraws:
    """Draws that weights can be trusted with, most of them the flow's; with their densities."""
    u, log_proposal, log_q = _draw(flow, key, n, defensive=_DEFENSIVE)
    return WeighedDraws(u, log_proposal, log_q, log_density_of_rows(target, u))


def rehearse(flow: AbstractSampler, target: Target) -> None:
    """Compile all that a posterior of `target` with a flow like this will ask for, on one piece of rows."""
    u = weigh(flow, target, as_key(0), PIECE).u
    score(flow, u)
    if bends(flow):
        value_and_score_of_rows(LatentDensity(flow, target), push(flow, pull(flow, u))[:1])
    params = constrain(target.space, target.data, u)
    derive(target, params)
    predict(target, as_key(0), params)
    pointwise_log_likelihood(target, params)


def constrain(space: AbstractSpace, data: PyTree, u: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of R^d as a dict of constrained parameters."""
    params = in_pieces(_constrain_rows(space, data), u, PIECE)
    # JAX gives dicts back in the order of their keys
    return {name: params[name] for name in space.names}


def log_det(space: AbstractSpace, data: PyTree, u: np.ndarray) -> np.ndarray:
    """Log-determinants of `constrain` at rows of R^d."""
    return in_pieces(_log_det_rows(space, data), u, PIECE)


def unconstrain(space: AbstractSpace, data: PyTree, draws: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(rows of R^d, log-determinants of `constrain` there)."""
    return in_pieces(_unconstrain_rows(space, data), draws, PIECE)


def score(flow: AbstractSampler, u: np.ndarray) -> np.ndarray:
    """Log q of rows of R^d; for an auxiliary flow a lower bound of it."""
    return in_pieces(_score_rows(flow), u, PIECE)


def is_affine(flow: AbstractSampler) -> bool:
    """Whether it is a base pushed through an affine map alone."""
    return isinstance(flow, Transformed) and isinstance(flow.bijection, TriangularAffine)


def bends(flow: AbstractSampler) -> TypeGuard[Transformed]:
    """Whether it is a base pushed through more than an affine map, one that is cheap to go along."""
    return isinstance(flow, Transformed) and not is_affine(flow) and flow.bijection.forward_cost == "direct"


def push(flow: Transformed, z: np.ndarray) -> np.ndarray:
    """Rows of the base's space, pushed through the flow."""
    return in_pieces(_push_rows(flow), z, PIECE)


def pull(flow: Transformed, u: np.ndarray) -> np.ndarray:
    """Rows z that `push` gives u for."""
    return in_pieces(_pull_rows(flow), u, PIECE)


def derive(target: Target, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's deterministic quantities, {} where it has none."""
    if target.deterministic is None:
        return {}
    return in_pieces(_derive_rows(target), params, PIECE)


def predict(target: Target, key: PRNGKeyArray, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One replicated data set a row, {} where the model cannot."""
    if target.predictive is None:
        return {}
    n = len(next(iter(params.values())))
    return in_pieces(_predict_rows(target, key), (np.arange(n, dtype=np.int32), params), PIECE)


def pointwise_log_likelihood(target: Target, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The log-likelihood of every observation a row, {} where the model has none."""
    if target.log_likelihood is None:
        return {}
    out = in_pieces(_likelihood_rows(target), params, PIECE)
    return out if isinstance(out, dict) else {"y": out}
