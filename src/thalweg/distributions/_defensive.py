"""Draws for importance weights: a flow's, a few of them thrown wide, so that weights stay bounded in the tails."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, PRNGKeyArray, Scalar, over_batch
from thalweg.bijections import Chain, TriangularAffine
from thalweg.distributions._base import StudentT, normals, uniforms
from thalweg.distributions._distribution import AbstractSampler
from thalweg.distributions._transformed import Transformed

_FURTHEST = 8.0
_CHOICES = 3
"""Numbers in (0, 1) that say whether a draw is wide, which way, and how far."""
_KEPT = _FURTHEST / math.sqrt(2 + _FURTHEST**2)
"""Of a Student-t with 2 degrees of freedom, the part within +-_FURTHEST: a log density may overflow further out."""


class DefensiveDraws(NamedTuple):
    """Draws, with what a weight needs.

    Attributes:
        x: (n, d).
        log_proposal: the log density that they were drawn with.
        log_q: that of the flow.
    """

    x: Array
    log_proposal: Array
    log_q: Array


def defensive_draws(flow: AbstractSampler, key: PRNGKeyArray, n: int, share: Any = 0.1) -> DefensiveDraws:
    r"""Draws of $(1 - \epsilon)\, q + \epsilon\, q_{wide}$.

    For a flow f whose base is a Student-t, q_wide is f of a standard normal whose component along one direction, at
    random, is drawn from a Student-t of 2 degrees of freedom instead, cut off at 8. The directions are those in which
    f's last affine map moves one coordinate each: a posterior with an exponential tail in some coordinate, as the
    logarithm of a scale has, keeps bounded weights, at the price of a few of the draws. Any other flow gives its own
    draws, and so does any at epsilon = 0.

    Args:
        flow: f of its base.
        key: of all draws.
        n: how many.
        share: epsilon.

    Source: Hesterberg 1995 (defensive mixtures); the choice of the wide part is ours.
    """
    base = flow.base if isinstance(flow, Transformed) else None
    if not isinstance(flow, Transformed) or not isinstance(base, StudentT) or len(base.shape) != 1:
        x, log_q = flow.sample_and_log_q(jax.random.split(key, n))
        return DefensiveDraws(x, log_q, log_q)
    directions = _directions(flow)

    width = base.n_uniforms + _CHOICES
    u = uniforms(key, n * width).reshape(n, width)

    def one(u: Array) -> tuple[Array, Scalar, Scalar]:
        return _draw_base(base, directions, u, share)

    z, log_proposal, log_base = over_batch(one, {"u": (u, (width,))})
    forward = partial(flow.bijection._apply, "_forward_and_log_det", context=None)
    x, log_det = over_batch(forward, {"x": (z, base.shape)}, takes_batches=True)
    return DefensiveDraws(x, log_proposal - log_det, log_base - log_det)


def _directions(flow: Transformed) -> Array:
    """Unit vectors, one a row."""
    last = flow.bijection.bijections[-1] if isinstance(flow.bijection, Chain) else flow.bijection
    if not isinstance(last, TriangularAffine):
        return jnp.asarray(np.eye(flow.shape[0]), jnp.result_type(float))
    rows = last.scale_tril
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def _draw_base(base: StudentT, directions: Array, u: Array, epsilon: Any) -> tuple[Array, Scalar, Scalar]:
    """(z, its log density, that of the base alone), from numbers in (0, 1)."""
    d = base.shape[0]
    own, (choice, which, far) = u[:-_CHOICES], u[-_CHOICES:]
    # a draw is either narrow or wide: both may be made of the same numbers
    narrow = normals(own[:d], (d,))
    direction = directions[jnp.minimum((which * d).astype(jnp.int32), d - 1)]
    # the quantile function t of the Student-t with 2 degrees of freedom, t / sqrt(2 + t^2) = 2 F - 1
    scaled = _KEPT * (2 * far - 1)
    far = scaled * jnp.sqrt(2 / (1 - scaled**2))
    wide = narrow + direction * (far - direction @ narrow)
    z = jnp.where(choice < epsilon, wide, base.from_uniforms(own))
    log_base = base._log_prob(z, None)
    along = directions @ z
    # the Student-t's density over the normal's, along each direction
    log_ratio = -1.5 * jnp.log(2 + along**2) + 0.5 * along**2 + 0.5 * math.log(2 * math.pi) - math.log(_KEPT)
    log_ratio = jnp.where(jnp.abs(along) <= _FURTHEST, log_ratio, -jnp.inf)
    log_normal = -0.5 * (z @ z) - 0.5 * d * math.log(2 * math.pi)
    log_wide = log_normal + jax.nn.logsumexp(log_ratio) - math.log(d)
    return z, jnp.logaddexp(jnp.log1p(-epsilon) + log_base, jnp.log(epsilon) + log_wide), log_base
