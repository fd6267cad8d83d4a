"""Draws of a flow pushed through the target, in pieces of one size so that nothing recompiles for another n."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, PRNGKeyArray, PyTree, over_batch
from thalweg.distributions import AbstractAuxiliaryDistribution, AbstractDistribution, AbstractSampler
from thalweg.targets import Space, Target

PIECE = 1000
"""Draws a call."""
_ROWS_AT_ONCE = 10_000_000
"""Rows of data times draws evaluated at once, to bound memory."""


class WeighedDraws(NamedTuple):
    """Draws of q on R^d with what a weight needs.

    Attributes:
        u: (n, d).
        log_q: (n,), exact or extended.
        log_p: (n,), the target's log density.
    """

    u: np.ndarray
    log_q: np.ndarray
    log_p: np.ndarray


@eqx.filter_jit
def _draw_piece(flow: AbstractSampler, key: PRNGKeyArray) -> tuple[Array, Array]:
    return flow.sample_and_log_q(key, (PIECE,))


@eqx.filter_jit
def _density_rows(target: Target, u: Array) -> Array:
    block = min(PIECE, max(1, _ROWS_AT_ONCE // (target.n_rows if target.is_split else 1)))
    if block == PIECE:
        return over_batch(target.log_density, {"u": (u, (target.size,))})
    return jax.lax.map(target.log_density, u, batch_size=block)


@eqx.filter_jit
def _score_rows(flow: AbstractSampler, u: Array) -> Array:
    if isinstance(flow, AbstractAuxiliaryDistribution):
        return flow.log_prob_bounds(0, u).lower
    if isinstance(flow, AbstractDistribution):
        return flow.log_prob(u)
    raise TypeError(f"{type(flow).__name__} is neither an exact nor an auxiliary distribution")


@eqx.filter_jit
def _constrain_rows(space: Space, data: PyTree, u: Array) -> dict[str, Array]:
    return jax.vmap(lambda one: space.constrain(one, data)[0])(u)


@eqx.filter_jit
def _unconstrain_rows(space: Space, data: PyTree, draws: dict[str, Array]) -> tuple[Array, Array]:
    def one(params: dict[str, Array]) -> tuple[Array, Array]:
        u = space.unconstrain(params, data)
        return u, space.constrain(u, data)[1]

    return jax.vmap(one)(draws)


def _nothing(*_: Any) -> dict[str, Array]:
    return {}


@eqx.filter_jit
def _derive_rows(target: Target, params: dict[str, Array]) -> dict[str, Array]:
    return jax.vmap(lambda one: (target.deterministic or _nothing)(one, target.data))(params)


@eqx.filter_jit
def _predict_rows(target: Target, key: PRNGKeyArray, params: dict[str, Array]) -> dict[str, Array]:
    keys = jax.random.split(key, next(iter(params.values())).shape[0])
    return jax.vmap(lambda k, one: (target.predictive or _nothing)(k, one, target.data))(keys, params)


@eqx.filter_jit
def _likelihood_rows(target: Target, params: dict[str, Array]) -> Any:
    return jax.vmap(lambda one: (target.log_likelihood or _nothing)(one, target.data))(params)


def _join(pieces: list[Any], n: int) -> Any:
    return jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs])[:n], *pieces)


def _keys(key: PRNGKeyArray, n: int) -> list[PRNGKeyArray]:
    return [jax.random.fold_in(key, i) for i in range(-(-n // PIECE))]


def draw(flow: AbstractSampler, key: PRNGKeyArray, n: int) -> np.ndarray:
    """N draws on R^d; the first m of n draws are the m draws of the same key."""
    return _join([_draw_piece(flow, k)[0] for k in _keys(key, n)], n)


def _in_pieces(function: Any, rows: Any, n: int) -> Any:
    """Apply to pieces of PIECE rows, the last one padded by repeating its first row."""
    out = []
    for start in range(0, n, PIECE):
        stop = min(start + PIECE, n)
        fill = np.minimum(np.arange(start, start + PIECE), stop - 1)
        out.append(function(jax.tree.map(lambda a, fill=fill: jnp.asarray(np.asarray(a)[fill]), rows)))
    return _join(out, n)


def log_density_of_rows(target: Target, u: np.ndarray) -> np.ndarray:
    """The target's log density at rows of R^d; compiled once a target, whatever drew the rows."""
    return _in_pieces(lambda rows: _density_rows(target, rows), u, len(u))


def weigh(flow: AbstractSampler, target: Target, key: PRNGKeyArray, n: int) -> WeighedDraws:
    """The same draws as `draw`, with log q and log p."""
    u, log_q = _join([_draw_piece(flow, k) for k in _keys(key, n)], n)
    return WeighedDraws(u, log_q, log_density_of_rows(target, u))


def constrain(space: Space, data: PyTree, u: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of R^d as a dict of constrained parameters."""
    params = _in_pieces(lambda rows: _constrain_rows(space, data, rows), u, len(u))
    # JAX gives dicts back in the order of their keys
    return {name: params[name] for name in space.names}


def unconstrain(space: Space, data: PyTree, draws: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(rows of R^d, log-determinants of `constrain` there)."""
    n = len(next(iter(draws.values())))
    return _in_pieces(lambda rows: _unconstrain_rows(space, data, rows), draws, n)


def score(flow: AbstractSampler, u: np.ndarray) -> np.ndarray:
    """Log q of rows of R^d; for an auxiliary flow a lower bound of it."""
    return _in_pieces(lambda rows: _score_rows(flow, rows), u, len(u))


def derive(target: Target, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's deterministic quantities, {} where it has none."""
    if target.deterministic is None:
        return {}
    return _in_pieces(lambda rows: _derive_rows(target, rows), params, len(next(iter(params.values()))))


def predict(target: Target, key: PRNGKeyArray, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One replicated data set a row, {} where the model cannot."""
    if target.predictive is None:
        return {}
    n = len(next(iter(params.values())))
    keys = iter(_keys(key, n))
    return _in_pieces(lambda rows: _predict_rows(target, next(keys), rows), params, n)


def pointwise_log_likelihood(target: Target, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The log-likelihood of every observation a row, {} where the model has none."""
    if target.log_likelihood is None:
        return {}
    n = len(next(iter(params.values())))
    out = _in_pieces(lambda rows: _likelihood_rows(target, rows), params, n)
    return out if isinstance(out, dict) else {"y": out}
