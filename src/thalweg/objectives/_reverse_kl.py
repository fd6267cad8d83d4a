"""Reverse KL: the negative evidence lower bound of a target."""

import dataclasses
import math

import equinox as eqx
import jax.numpy as jnp
from jax.sharding import Mesh

from thalweg._core import Array, PRNGKeyArray, PyTree, Scalar, check_choice, check_positive_int, register, requirement
from thalweg.distributions import AbstractSampler
from thalweg.objectives._objective import AbstractObjective
from thalweg.objectives._terms import log_p_and_log_q
from thalweg.targets import Target


@register
@dataclasses.dataclass(frozen=True)
class Annealing:
    r"""A factor that grows along the steps, $\beta_t = \min(1, \beta_0 + t / T)$.

    On "joint" it multiplies log p: $E_q[\log q - \beta \log p]$ (Rezende and Mohamed 2015, section 4). On "kl", for a
    target from `from_likelihood`, it multiplies the prior's part, log-Jacobian included:
    $E_q[\beta (\log q - \log p(u)) - \log p(y | u)]$.

    Args:
        steps: T.
        first: beta_0, in (0, 1].
        on: "joint" or "kl".

    Raises:
        ValueError: if one of them is none of these.
    """

    steps: int = 10_000
    first: float = 0.01
    on: str = "joint"

    def __post_init__(self) -> None:
        """Check."""
        check_positive_int("steps", self.steps)
        check_choice("on", self.on, ("joint", "kl"))
        if not 0 < self.first <= 1:
            raise ValueError(requirement("first", "lie in (0, 1]", self.first))


@register
class ReverseKL(AbstractObjective):
    r"""$\mathrm{KL}(q \| p) - \log Z = -\mathrm{ELBO} = E_q[\log q(u) - \log p(u)]$ over n draws.

    Exact and auxiliary distributions alike; for the latter log q is the extended term and the loss an upper bound.

    Args:
        target: the log density on R^d, up to a constant.
        n_draws: draws a step.
        path: use the path gradient ("sticking the landing"), whose variance vanishes as q approaches the target.
            False gives the plain reparametrised gradient.
        batch_size: rows of the data a step, for targets made by `from_likelihood` (doubly stochastic: the rows'
            log-likelihood is scaled up by n / batch_size, which keeps value and gradient unbiased); None for all.
        mesh: devices to cut the draws over; the whole batch's keys are split, not each device's, so that any number of
            devices makes the same draws. `n_draws` must be a multiple of their number.
        annealing: a factor that grows along a fit's steps; None for 1 throughout.

    Raises:
        ValueError: for counts below 1, or annealing on the KL of a target that is not split.

    Source: Rezende and Mohamed 2015; Roeder et al. 2017; Titsias and Lazaro-Gredilla 2014.
    """

    target: Target
    n_draws: int = eqx.field(static=True, default=128)
    path: bool = eqx.field(static=True, default=True)
    batch_size: int | None = eqx.field(static=True, default=None)
    mesh: Mesh | None = eqx.field(static=True, default=None)
    annealing: Annealing | None = eqx.field(static=True, default=None)
    beta: Array | None = None

    def __check_init__(self) -> None:
        """Raise ValueError for counts below 1, or annealing that the target does not allow."""
        check_positive_int("n_draws", self.n_draws)
        if self.batch_size is not None:
            check_positive_int("batch_size", self.batch_size)
        if self.annealing is not None and self.annealing.on == "kl" and not self.target.is_split:
            remedy = "build the target with from_likelihood"
            raise ValueError(requirement("annealing", 'be on "joint" for a target that is not split', "kl", remedy))

    @property
    def evaluations(self) -> int:
        """One of each draw."""
        return self.n_draws

    @property
    def steps_of_change(self) -> int:
        """Those until beta is 1."""
        return 0 if self.annealing is None else math.ceil((1 - self.annealing.first) * self.annealing.steps)

    def at(self, index: Array) -> "ReverseKL":
        """The objective at step `index`: beta is that step's."""
        if self.annealing is None:
            return self
        beta = jnp.minimum(1.0, self.annealing.first + index.astype(jnp.result_type(float)) / self.annealing.steps)
        return dataclasses.replace(self, beta=beta)

    def __call__(
        self, distribution: AbstractSampler, key: PRNGKeyArray, batch: PyTree = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """(-ELBO, {"elbo": ELBO}), both with beta on "kl"; `batch` takes the place of the target's data."""
        beta = 1.0 if self.beta is None else self.beta
        on_kl = self.annealing is not None and self.annealing.on == "kl"
        log_p, log_q = log_p_and_log_q(
            self.target,
            distribution,
            key,
            batch,
            n_draws=self.n_draws,
            path=self.path,
            batch_size=self.batch_size,
            mesh=self.mesh,
            likelihood_factor=1 / beta if on_kl else 1.0,
        )
        if on_kl:
            loss = jnp.mean(beta * (log_q - log_p))
            return loss, {"elbo": -loss}
        return jnp.mean(log_q - beta * log_p), {"elbo": jnp.mean(log_p - log_q)}
