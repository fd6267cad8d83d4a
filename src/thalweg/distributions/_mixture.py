"""Mixtures of distributions that are built alike."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np

from thalweg._core import (
    Array,
    Float,
    PRNGKeyArray,
    Scalar,
    Shape,
    from_numpy,
    over_batch,
    register,
    requirement,
    stack_modules,
)
from thalweg.distributions._distribution import AbstractDistribution


@register
class Mixture(AbstractDistribution):
    r"""$q(x) = \sum_k w_k\, q_k(x)$, for modes that no one flow reaches all of.

    A draw costs one of every component, a score likewise: all are built alike and run at once. Gradients follow a draw
    through its own component alone. Which one that was is a choice that no gradient passes through, so that objectives
    of the mixture's own draws leave the weights as they are; the density of given points (the forward KL) moves them,
    and `reweighted` sets them.

    Args:
        components: distributions of one structure, without a context.
        weights: positive, one a component; None for equal ones. They are normalised.

    Raises:
        ValueError: if the components differ in structure, take a context, or the weights do not fit.
    """

    components: AbstractDistribution
    logits: Array
    n_components: int = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None

    def __init__(self, components: Sequence[AbstractDistribution], weights: Any = None) -> None:
        self.components = stack_modules(components)
        self.n_components = len(components)
        if self.components.context_shape is not None:
            raise ValueError(requirement("components", "take no context", self.components.context_shape))
        self.logits = _logits(np.ones(self.n_components) if weights is None else weights, self.n_components)

    @property
    def shape(self) -> Shape:
        """The components'."""
        return self.components.shape

    @property
    def weights(self) -> Float[Array, " n_components"]:
        """W, of sum 1."""
        return jax.nn.softmax(self.logits)

    def reweighted(self, weights: Any) -> "Mixture":
        """The same components with other weights.

        Raises:
            ValueError: if they are not positive, or not one a component.
        """
        return eqx.tree_at(lambda m: m.logits, self, _logits(weights, self.n_components))

    def _of_all(self, function: Callable[[AbstractDistribution], Any]) -> Any:
        """What a function gives for every component, (n_components, ...)."""
        arrays, static = eqx.partition(self.components, eqx.is_array)
        return jax.vmap(lambda one: function(eqx.combine(one, static)))(arrays)

    def _log_parts(self, x: Array) -> Array:
        return jax.nn.log_softmax(self.logits) + self._of_all(lambda q: q._log_prob(x, None))

    def responsibilities(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The chance that x came from each component, (*batch, n_components)."""
        return over_batch(lambda one: jax.nn.softmax(self._log_parts(one)), {"x": (x, self.shape)})

    def _sample_and_log_q(self, key: PRNGKeyArray, context: Array | None) -> tuple[Array, Scalar]:
        x = self._sample(key, context)
        # the half of their gradient that goes through the density would push the weights the wrong way
        fixed = eqx.tree_at(lambda m: m.logits, self, jax.lax.stop_gradient(self.logits))
        return x, fixed._log_prob(x, context)

    def _sample(self, key: PRNGKeyArray, context: Array | None) -> Array:
        choose, own = jax.random.split(key)
        index = jax.random.categorical(choose, self.logits)
        return self._of_all(lambda q: q._sample(own, None))[index]

    def _log_prob(self, x: Array, context: Array | None) -> Scalar:
        return jax.nn.logsumexp(self._log_parts(x))


def _logits(weights: Any, count: int) -> Array:
    given = np.asarray(weights, float)
    if given.shape != (count,) or not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(requirement("weights", f"be {count} positive numbers, one a component", given))
    return from_numpy(np.log(given / given.sum()))
