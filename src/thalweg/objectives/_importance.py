"""Bounds of the evidence by several draws at once: importance-weighted and Renyi's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, PRNGKeyArray, PyTree, Scalar, check_positive_int, register, requirement
from thalweg.distributions import AbstractAuxiliaryDistribution, AbstractSampler
from thalweg.objectives._objective import AbstractObjective
from thalweg.objectives._terms import log_p_and_log_q
from thalweg.targets import Target

_NEAR = 0.1
"""Of exponents: below, the log of their mean exponential is written in differences from 1, or loses its digits."""


@register
class ImportanceWeighted(AbstractObjective):
    r"""$-E \log \frac1k \sum_{i \le k} w_i$, $w_i = p(u_i) / q(u_i)$: a bound of -log Z that k tightens.

    The gradient is the doubly reparametrised one, $\sum_i \hat w_i^2\, \partial_u \log w_i\, \partial_\phi u_i$ with
    normalised weights, whose signal does not drown in its noise as k grows; for auxiliary distributions, or where
    `doubly` is False, the plain one.

    Source: Burda et al. 2016; Tucker et al. 2019.

    Args:
        target: the log density.
        k: draws a bound.
        n_bounds: bounds a step, whose mean is taken.
        doubly: use the doubly reparametrised gradient.
        batch_size: as for `ReverseKL`; the bound is then no longer unbiased.
    """

    target: Target
    k: int = eqx.field(static=True, default=16)
    n_bounds: int = eqx.field(static=True, default=8)
    doubly: bool = eqx.field(static=True, default=True)
    batch_size: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        """Raise ValueError for counts below 1."""
        check_positive_int("k", self.k)
        check_positive_int("n_bounds", self.n_bounds)
        if self.batch_size is not None:
            check_positive_int("batch_size", self.batch_size)

    @property
    def evaluations(self) -> int:
        """One of each draw."""
        return self.k * self.n_bounds

    def __call__(
        self, distribution: AbstractSampler, key: PRNGKeyArray, batch: PyTree = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """(-bound, {"elbo": bound})."""
        # the reverse distribution's score does not have mean zero: it must not be dropped, nor weigh by squares
        doubly = self.doubly and not isinstance(distribution, AbstractAuxiliaryDistribution)
        n = self.k * self.n_bounds
        terms = log_p_and_log_q(
            self.target, distribution, key, batch, n_draws=n, path=doubly, batch_size=self.batch_size
        )
        log_w = (terms[0] - terms[1]).reshape(self.n_bounds, self.k)
        bound = jnp.mean(jax.nn.logsumexp(log_w, axis=1) - jnp.log(self.k))
        share = jax.lax.stop_gradient(jax.nn.softmax(log_w, axis=1))
        if doubly:
            moving = jnp.mean(jnp.sum(share**2 * log_w, axis=1))
            bound = jax.lax.stop_gradient(bound - moving) + moving
        return -bound, {"elbo": bound}


@register
class Renyi(AbstractObjective):
    r"""Renyi's bound $L_\alpha = \frac{1}{1 - \alpha} \log \frac1n \sum_i w_i^{1 - \alpha}$ of log Z.

    alpha = 1 is the ELBO, 0 the importance-weighted bound; below 0 it bounds log Z from above, and making it small
    covers all the mass: alpha = -1 is half the log of the second moment of the weights (chi-squared). From 0 on the
    bound is maximised, below it is minimised. Plain reparametrised gradients; biased for few draws. Near alpha = 0
    their signal drowns in noise as n grows: `ImportanceWeighted` is that bound with gradients that bear it.

    Source: Li and Turner 2016.

    Args:
        target: the log density.
        alpha: the order.
        n_draws: n.
        batch_size: as for `ReverseKL`; the bound is then no longer unbiased.
    """

    target: Target
    alpha: float = eqx.field(static=True)
    n_draws: int = eqx.field(static=True, default=128)
    batch_size: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        """Raise ValueError for an order that is no finite number."""
        if not (isinstance(self.alpha, int | float | np.number) and abs(self.alpha) < float("inf")):
            raise ValueError(requirement("alpha", "be a finite number", repr(self.alpha)))
        check_positive_int("n_draws", self.n_draws)
        if self.batch_size is not None:
            check_positive_int("batch_size", self.batch_size)

    @property
    def evaluations(self) -> int:
        """One of each draw."""
        return self.n_draws

    def __call__(
        self, distribution: AbstractSampler, key: PRNGKeyArray, batch: PyTree = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """(-bound, or the bound below alpha 0, {"elbo": ELBO, "bound": bound})."""
        log_p, log_q = log_p_and_log_q(
            self.target, distribution, key, batch, n_draws=self.n_draws, path=False, batch_size=self.batch_size
        )
        log_w = log_p - log_q
        elbo, order = jnp.mean(log_w), 1 - self.alpha
        bound = elbo if order == 0 else elbo + _log_mean_exp(order * (log_w - elbo)) / order
        return (bound if self.alpha < 0 else -bound), {"elbo": elbo, "bound": bound}


def _log_mean_exp(x: Array) -> Scalar:
    """Log of the mean of exp(x), exact to rounding of itself where the x are all near 0."""
    near = jnp.max(jnp.abs(x)) < _NEAR
    exact = jnp.log1p(jnp.mean(jnp.expm1(jnp.where(near, x, 0))))
    return jnp.where(near, exact, jax.nn.logsumexp(x) - jnp.log(x.size))
