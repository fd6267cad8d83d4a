"""A full-rank Gaussian by natural-gradient ascent of the ELBO, from several starts at once."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from thalweg._core import Array, Float, PRNGKeyArray, Scalar, all_finite, from_numpy, where_tree
from thalweg.run import AbstractProcess, Status
from thalweg.targets import Target


class GaussianState(NamedTuple):
    """The state of a Gaussian fit from k starts.

    Attributes:
        loc: means, (k, d).
        scale_tril: Cholesky factors of the covariances, (k, d, d).
        careful: (k,), 1 where the mean's step is kept below Newton's, 0 where it is bold.
        cooling: the step at which cooling down began, -1 before.
        n_bad: bad steps so far.
    """

    loc: Float[Array, "k d"]
    scale_tril: Float[Array, "k d d"]
    careful: Float[Array, " k"]
    cooling: Array
    n_bad: Array


class GaussianFit(AbstractProcess[GaussianState]):
    r"""Natural-gradient variational inference with N(m, L L').

    In the coordinates z of the present Gaussian, u = m + L z, let s = L' grad log p(u) + z, which vanishes where the
    fit is exact. With G = E[s z'], made symmetric, the step is m += rho L E[s] and covariance L (I - rho G)^-1 L':
    one step of Newton's method where p is Gaussian, and with no noise at the end. Both parts are clipped in norm, the
    mean's step from every other start by Newton's too (what is narrow wants care, what is far off wants boldness), and
    rho falls while cooling down.

    Source: Khan and Rue 2023, section 4 (the Bayesian learning rule for Gaussians), the Hessian by Stein's identity.

    Args:
        target: the log density.
        n_pairs: antithetic pairs of draws a step.
        rate: rho.
        cool_steps: steps of cooling down.
        batch_size: rows of data a step, for split targets; None for all.
    """

    target: Target
    n_pairs: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    cool_steps: int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    chunk: ClassVar[int] = 20
    records: ClassVar[tuple[str, ...]] = ("elbo", "good")

    def __init__(
        self,
        target: Target,
        *,
        n_pairs: int | None = None,
        rate: float = 0.5,
        cool_steps: int = 60,
        batch_size: int | None = None,
    ) -> None:
        self.target, self.rate, self.cool_steps, self.batch_size = target, rate, cool_steps, batch_size
        self.n_pairs = 32 + target.size if n_pairs is None else n_pairs

    def init(self, starts: Any, scale: float = 0.1) -> GaussianState:
        """The state before the first step: narrow Gaussians at `starts`, (k, d)."""
        starts = np.asarray(starts, jnp.result_type(float))
        k, d = starts.shape
        tril = np.broadcast_to(scale * np.eye(d, dtype=starts.dtype), (k, d, d))
        careful = np.arange(k) % 2 == 0
        minus, zero = from_numpy(np.int32(-1)), from_numpy(np.int32(0))
        return GaussianState(
            from_numpy(starts), from_numpy(tril), from_numpy(careful.astype(starts.dtype)), minus, zero
        )

    def step(self, state: GaussianState, key: PRNGKeyArray, index: Array) -> tuple[GaussianState, dict[str, Scalar]]:
        """One step from every start; a start's bad step narrows its Gaussian instead."""
        dtype = state.loc.dtype
        since = jnp.where(state.cooling < 0, 0, index - state.cooling).astype(dtype)
        rate = self.rate * jnp.maximum(0.02, 1 - since / self.cool_steps) ** 2
        draw, pick = jax.random.split(key)
        # drawn flat: XLA compiles that faster
        z = jax.random.normal(draw, (self.n_pairs * self.target.size,), dtype).reshape(self.n_pairs, -1)
        z = jnp.concatenate([z, -z])
        data, weight = self.target.data, 1.0
        if self.batch_size is not None:
            data, weight = self.target.rows(pick, data, self.batch_size)

        def density(u: Array) -> Scalar:
            return self.target.log_density(u, data, weight)

        one = partial(self._one, density, z, rate)
        (loc, tril), elbo, good = jax.vmap(one)(state.loc, state.scale_tril, state.careful)
        n_bad = state.n_bad + (~good).sum().astype(jnp.int32)
        record = {"elbo": jnp.max(jnp.where(good, elbo, -jnp.inf)), "good": jnp.any(good)}
        return state._replace(loc=loc, scale_tril=tril, n_bad=n_bad), record

    def _one(
        self, density: Callable[[Array], Scalar], z: Array, rate: Array, loc: Array, tril: Array, careful: Scalar
    ) -> tuple[tuple[Array, Array], Scalar, Array]:
        d = self.target.size
        u = loc[None] + z @ tril.T
        log_p, score = jax.vmap(jax.value_and_grad(density))(u)
        s = score @ tril + z
        n = z.shape[0]
        mean = s.mean(0)
        gram = s.T @ z / n
        gram = 0.5 * (gram + gram.T)
        # along the mean's own direction the curvature is known: no step goes beyond Newton's
        length = jnp.linalg.norm(mean) + 1e-30
        curvature = 1 + careful * jnp.maximum(0, -(mean / length) @ gram @ (mean / length))
        mean = mean / curvature
        slowing = jnp.minimum(1, math.sqrt(d) * curvature / (rate * length))
        shift = rate * slowing * mean
        # the largest eigenvalue in size, by a few power iterations; 0.8 leaves room for their error
        largest = _largest_eigenvalue(gram)
        # a Gaussian that is still far from where it is going must not shrink on the way, or it never arrives
        slowing = jnp.where((largest < 0) & (careful > 0), slowing, 1)
        step = rate * slowing * jnp.minimum(1, 0.8 / (rate * jnp.abs(largest) + 1e-12))
        precision = jnp.eye(d, dtype=z.dtype) - step * gram
        # I - rho G = R R' with R upper triangular, so that R'^-1 is lower: the new factor is L R'^-1
        flipped = jnp.linalg.cholesky(precision[::-1, ::-1])
        upper = flipped[::-1, ::-1]
        new_tril = solve_triangular(upper, tril.T, lower=False).T
        log_q = -0.5 * (z**2).sum(1) - 0.5 * d * math.log(2 * math.pi) - jnp.log(jnp.diagonal(tril)).sum()
        new = (loc + tril @ shift, new_tril)
        good = all_finite((new, log_p, score))
        return where_tree(good, new, (loc, tril / 2)), (log_p - log_q).mean(), good

    def review(
        self, state: GaussianState, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[GaussianState, Status | None]:
        """Cool down once the best ELBO has settled; stop when cool."""
        done, elbo = len(history["elbo"]), history["elbo"]
        start = int(state.cooling)
        if start >= 0:
            return state, (Status.CONVERGED if done >= start + self.cool_steps else None)
        recent = elbo[-2 * self.chunk :]
        settled = done >= 3 * self.chunk and np.all(np.isfinite(recent)) and _gain(recent) < 0.02
        if settled or hurry or done >= steps - self.cool_steps:
            state = state._replace(cooling=jnp.asarray(np.int32(done)))
        return state, None


def _gain(elbo: np.ndarray) -> float:
    """How much the median of the second half exceeds that of the first, less its noise."""
    first, second = np.split(elbo, 2)
    return float(np.median(second) - np.median(first) - (np.std(first) + np.std(second)) / np.sqrt(len(first)))


def _largest_eigenvalue(matrix: Array) -> Scalar:
    """Of a symmetric matrix, the one largest in size, with its sign; about, by six squared power iterations."""
    vector = jnp.linspace(1, 1.5, matrix.shape[0], dtype=matrix.dtype)

    def iterate(_: Any, v: Array) -> Array:
        w = matrix @ (matrix @ v)
        return w / (jnp.linalg.norm(w) + 1e-30)

    v = jax.lax.fori_loop(0, 6, iterate, vector / jnp.linalg.norm(vector))
    return jnp.linalg.norm(matrix @ v) * jnp.sign(v @ (matrix @ v))
