"""Modes that other starts ended in: a fit that leaves them out must not be trusted."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from thalweg._core import PRNGKeyArray, numpy_rng
from thalweg.distributions import AbstractSampler
from thalweg.posterior import draw_and_score, score
from thalweg.targets import Target, log_density_of_rows

APART, _NATS, _TOO_HIGH = 5.0, 5.0, 5.0
_DRAWS = 200


class Mode(NamedTuple):
    """Where a start's Gaussian ended.

    Attributes:
        loc: its mean, (d,).
        scale_tril: its Cholesky factor, (d, d).
    """

    loc: np.ndarray
    scale_tril: np.ndarray


def other_modes(loc: np.ndarray, scale_tril: np.ndarray, elbo: np.ndarray, best: int) -> list[Mode]:
    """Of k Gaussians, those that are far from the best (5 sd, in either's units), about as good (5 nats), and apart."""
    modes = [Mode(loc[best], scale_tril[best])]
    for k in np.argsort(-np.where(np.isnan(elbo), -np.inf, elbo)):
        new = Mode(loc[k], scale_tril[k])
        if elbo[k] > elbo[best] - _NATS and all(_distance(new, mode) > APART for mode in modes):
            modes.append(new)
    return modes[1:]


def _distance(a: Mode, b: Mode) -> float:
    between = a.loc - b.loc
    return min(float(np.linalg.norm(np.linalg.solve(m.scale_tril, between))) for m in (a, b))


def missed_mode(target: Target, flow: AbstractSampler, modes: list[Mode], key: PRNGKeyArray) -> str | None:
    """A sentence where the flow leaves out one of the modes: the target's density there is 5 times too high for it."""
    if not modes:
        return None
    own, log_q = draw_and_score(flow, key, _DRAWS)
    usual = float(np.median(log_density_of_rows(target, own) - log_q))
    z = numpy_rng(key).standard_normal((_DRAWS, target.size))
    for mode in modes:
        u = (mode.loc + z @ mode.scale_tril.T).astype(own.dtype)
        excess = float(np.median(log_density_of_rows(target, u) - score(flow, u))) - usual
        if excess > np.log(_TOO_HIGH):
            where = target.space.describe(jnp.asarray(mode.loc.astype(own.dtype)), target.data)
            return (
                f"another start ended in another mode, near {where}, which the flow leaves out (order the labels if "
                "they are what sets the modes apart, or fit each mode by its init)"
            )
    return None
