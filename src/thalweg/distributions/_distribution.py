"""The two contracts: exact distributions, and auxiliary ones whose density is only bounded."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._core import (
    Array,
    Float,
    PRNGKeyArray,
    Scalar,
    Seed,
    Shape,
    as_key,
    check_positive_int,
    over_batch,
    requirement,
)


class LogProbBounds(NamedTuple):
    """Bounds on a log density that is an integral: in expectation lower <= log q(z) <= upper.

    Attributes:
        lower: a bound from below.
        upper: a bound from above, or None where the point did not come with its own auxiliary draw.
    """

    lower: Float[Array, "*batch"]
    upper: Float[Array, "*batch"] | None


class AbstractSampler(eqx.Module):
    """What exact and auxiliary distributions share, and all that objectives, weights and verdicts ask for.

    Public methods take and give batches (leading axes); implementations see one point. The draw i of a batch depends
    on the i-th of the split keys alone, so that a batch cut over devices gives the same draws.

    Attributes:
        shape: of one point.
        context_shape: of the vector the distribution is conditioned on, or None.
        takes_batches: whether the private methods take batches too, as `AbstractBijection.takes_batches` has it, with n
            keys for one.
    """

    takes_batches: ClassVar[bool] = False
    shape: eqx.AbstractVar[Shape]
    context_shape: eqx.AbstractVar[Shape | None]

    @abc.abstractmethod
    def _sample(self, key: PRNGKeyArray, context: Array | None) -> Array: ...

    @abc.abstractmethod
    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]: ...

    @abc.abstractmethod
    def _sample_and_path_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]: ...

    def _check_context(self, context: Array | None) -> None:
        if (self.context_shape is None) != (context is None):
            must = "be None, since nothing conditions it" if context is not None else f"have shape {self.context_shape}"
            raise ValueError(requirement("context", must, "None" if context is None else context.shape))

    def sample(
        self, seed: Seed, shape: int | Shape = (), context: Float[Array, "..."] | None = None
    ) -> Float[Array, "..."]:
        """Draws, of shape (*shape, *context's batch, *self.shape).

        Args:
            seed: a JAX key or an int; or an array of keys, one a draw, which stands in for `shape`.
            shape: how many draws (an int, or axes).
            context: a batch of contexts, each of `context_shape`.
        """
        return self._draw(self._sample, seed, shape, context, takes_batches=self.takes_batches)

    def sample_and_log_q(
        self, seed: Seed, shape: int | Shape = (), context: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Draws z and the term log q that makes exp(log p(z) - log q) a proper importance weight.

        For an exact distribution that is its log density; for an auxiliary one log q(z, u) - log r(u | z).
        """
        return self._draw(self._sample_and_log_q, seed, shape, context, takes_batches=self.takes_batches)

    def sample_and_path_log_q(
        self, seed: Seed, shape: int | Shape = (), context: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """As `sample_and_log_q`, but differentiating log q follows the draws alone, not q's own parameters.

        The score it leaves out has mean zero; without it the gradient of the ELBO has no variance where q is exact.
        Source: Roeder et al. 2017 ("sticking the landing"); Vaitl et al. 2022.
        """
        return self._draw(self._sample_and_path_log_q, seed, shape, context, takes_batches=self.takes_batches)

    def _draw(
        self,
        function: Callable[..., Any],
        seed: Seed,
        shape: int | Shape,
        context: Array | None,
        *,
        takes_batches: bool = False,
    ) -> Any:
        """What a function of one key and one context gives, over keys and contexts."""
        self._check_context(context)
        keys = as_key(seed)
        if not keys.shape:
            axes = (check_positive_int("shape", shape),) if isinstance(shape, int) else tuple(shape)
            if context is not None and self.context_shape is not None:
                axes = (*axes, *context.shape[: context.ndim - len(self.context_shape)])
            keys = jax.random.split(keys, axes) if axes else keys
        arguments = {"key": (keys, ()), "context": (context, self.context_shape)}
        return over_batch(function, arguments, takes_batches=takes_batches)


class AbstractDistribution(AbstractSampler):
    """A distribution that draws and scores exactly: implement `_sample_and_log_q` (or both draws) and `_log_prob`."""

    @abc.abstractmethod
    def _log_prob(self, x: Array, context: Array | None) -> Scalar: ...

    def _sample(self, key: PRNGKeyArray, context: Array | None) -> Array:
        return self._sample_and_log_q(key, context)[0]

    def _sample_and_path_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        x = self._sample(key, context)
        return x, jax.lax.stop_gradient(self)._log_prob(x, context)

    def log_prob(self, x: Float[Array, "..."], context: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
        """The log density at x, (*batch, *self.shape); one number a point.

        Raises:
            ValueError: if the last axes of `x` are not `shape`, or the context is missing or unexpected.
        """
        self._check_context(context)
        arguments = {"x": (x, self.shape), "context": (context, self.context_shape)}
        return over_batch(self._log_prob, arguments, takes_batches=self.takes_batches)

    def sample_and_log_prob(
        self, seed: Seed, shape: int | Shape = (), context: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Draws and their log densities, at the price of the draws."""
        return self.sample_and_log_q(seed, shape, context)


class AbstractAuxiliaryDistribution(AbstractSampler):
    r"""A distribution of z with an auxiliary u: the joint q(z, u) is exact, q(z) is an integral.

    $r(u | z)$ approximates q(u | z); the extended term $\log q(z, u) - \log r(u | z)$ stands for log q(z) in
    objectives, which then bound the ELBO from below by $E_z KL(q(u|z) \| r(u|z))$, and in importance weights, which
    stay proper on the extended space. Source: Agakov and Barber 2004; Caterini et al. 2020.
    """

    @abc.abstractmethod
    def _sample_joint_and_log_prob(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Array, Scalar]:
        """(z, u, log q(z, u))."""

    @abc.abstractmethod
    def _log_joint(self, z: Array, u: Array, context: Array | None) -> Scalar:
        """Log q(z, u)."""

    @abc.abstractmethod
    def _sample_reverse(self, key: PRNGKeyArray, z: Array, context: Array | None) -> Array:
        """U ~ r(u | z)."""

    @abc.abstractmethod
    def _log_reverse(self, u: Array, z: Array, context: Array | None) -> Scalar:
        """Log r(u | z)."""

    def _sample(self, key: PRNGKeyArray, context: Array | None) -> Array:
        return self._sample_joint_and_log_prob(key, context)[0]

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        z, u, log_joint = self._sample_joint_and_log_prob(key, context)
        return z, log_joint - self._log_reverse(u, z, context)

    def _sample_and_path_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        z, u, _ = self._sample_joint_and_log_prob(key, context)
        # r's own parameters keep their gradient: its score under q does not have mean zero
        return z, jax.lax.stop_gradient(self)._log_joint(z, u, context) - self._log_reverse(u, z, context)

    def log_prob_bounds(
        self, seed: Seed, x: Float[Array, "..."], n: int = 64, context: Float[Array, "..."] | None = None
    ) -> LogProbBounds:
        r"""A bound from below on log q at x: $\log \frac1n \sum_i q(x, u_i) / r(u_i | x)$ with $u_i \sim r$.

        Below in expectation, for every n, and tight as n grows. Points drawn by `sample_with_bounds` have an upper
        one too.
        """
        self._check_context(context)

        def one(x: Array, key: PRNGKeyArray, context: Array | None) -> Scalar:
            return self._importance_log_prob(key, x, n, context)

        batch = x.shape[: x.ndim - len(self.shape)]
        keys = jax.random.split(as_key(seed), batch) if batch else as_key(seed)
        lower = over_batch(one, {"x": (x, self.shape), "key": (keys, ()), "context": (context, self.context_shape)})
        return LogProbBounds(lower, None)

    def _log_ratio(self, u: Array, z: Array, context: Array | None) -> Scalar:
        return self._log_joint(z, u, context) - self._log_reverse(u, z, context)

    def _sample_log_ratio(self, key: PRNGKeyArray, z: Array, context: Array | None) -> Scalar:
        """Log q(z, u) - log r(u | z) of a draw u ~ r."""
        return self._log_ratio(self._sample_reverse(key, z, context), z, context)

    def _importance_log_prob(self, key: PRNGKeyArray, z: Array, n: int, context: Array | None) -> Scalar:
        terms = jax.vmap(lambda own: self._sample_log_ratio(own, z, context))(jax.random.split(key, n))
        return jax.nn.logsumexp(terms) - jnp.log(n)

    def sample_with_bounds(
        self, seed: Seed, shape: int | Shape = (), n: int = 64, context: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, "..."], LogProbBounds]:
        r"""Draws with bounds on log q from both sides.

        The upper bound uses the auxiliary draw that came with the point, a draw of the exact q(u | z), among n - 1
        draws of r: $-\log \frac1n \sum_i r(u_i | z) / q(z, u_i)$ would need all n from q(u | z), so it is
        $\log \frac1n \sum_i q(z, u_i) / r(u_i | z)$ with one of the u from q(u | z), which is above in expectation.
        Source: Sobolev and Vetrov 2019.
        """

        def one(key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar, Scalar]:
            draw, below, above = jax.random.split(key, 3)
            z, u, _ = self._sample_joint_and_log_prob(draw, context)
            lower = self._importance_log_prob(below, z, n, context)
            own = self._log_ratio(u, z, context)
            if n == 1:
                return z, lower, own
            others = self._importance_log_prob(above, z, n - 1, context) + jnp.log(n - 1)
            return z, lower, jnp.logaddexp(own, others) - jnp.log(n)

        z, lower, upper = self._draw(one, seed, shape, context)
        return z, LogProbBounds(lower, upper)
