"""The contract of every bijection."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._core import Array, Cost, Float, Scalar, Shape, check_shape, freeze, register, requirement


class AbstractBijection(eqx.Module):
    r"""A differentiable, invertible map of one point to one point; `jax.vmap` makes batches of it.

    The contract is a pair of methods, each of which gives the value and the log-determinant of its own Jacobian; all
    else is derived from them here, once (what is not used, XLA drops). Both directions work, with gradients, for every
    bijection; what is costly is said by `forward_cost` and `inverse_cost`: "direct", "sequential" (one coordinate
    after another) or "root" (a scalar root).

    A bijection is built by subclassing this, once: implement `_forward_and_log_det` and `_inverse_and_log_det` for one
    point whose shape has been checked, give the fields below, and never subclass the result.

    Attributes:
        in_shape: shape of a point x.
        out_shape: shape of a point y = f(x). Where it has more numbers than degrees of freedom (a simplex, say), the
            log-determinant is with respect to the reference measure that the class states.
        context_shape: shape of the vector that the map is conditioned on, or None.
        forward_cost: how x -> y is computed.
        inverse_cost: how y -> x is computed.
        takes_batches: whether the private methods also take points with a batch axis *after* their own, (*shape, n),
            with a context that is shared or has that axis too, and then give n log-determinants. Elementwise work then
            runs along contiguous memory, through loops and products too, where `jax.vmap` would move the axis to the
            front: worth 2x on a CPU. A class that leaves it False is mapped over by `jax.vmap`.
    """

    takes_batches: ClassVar[bool] = False
    in_shape: eqx.AbstractVar[Shape]
    out_shape: eqx.AbstractVar[Shape]
    context_shape: eqx.AbstractVar[Shape | None]
    forward_cost: eqx.AbstractVar[Cost]
    inverse_cost: eqx.AbstractVar[Cost]

    def __check_init__(self) -> None:
        """Look, on shapes alone, whether a class from elsewhere keeps the contract; the house's own are tested.

        Raises:
            ValueError: if a method does not take a point, or does not give one and a number.
        """
        cls = type(self)
        if cls.__module__.partition(".")[0] == AbstractBijection.__module__.partition(".")[0]:
            return
        context = None if self.context_shape is None else jnp.zeros(self.context_shape)
        shapes = (self.in_shape, self.out_shape)
        for way, taken, given in (("forward", *shapes), ("inverse", *shapes[::-1])):
            method = f"_{way}_and_log_det"
            name = f"{cls.__name__}.{method}"
            try:
                found = jax.eval_shape(getattr(self, method), jnp.zeros(taken), context)
            except Exception as error:
                got = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                raise ValueError(requirement(name, f"take a point of shape {taken}", got)) from error
            got = jax.tree.map(jnp.shape, found)
            if got != (given, ()):
                must = f"give a point of shape {given} and a log-determinant of shape ()"
                alone = isinstance(found, jax.ShapeDtypeStruct)
                raise ValueError(requirement(name, must, "one array" if alone else f"{got}"))

    @abc.abstractmethod
    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]: ...

    @abc.abstractmethod
    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]: ...

    def _forward_with_score(self, x: Array, score: Array, context: Array | None) -> tuple[Array, Array, Array]:
        r"""(f(x), log-determinant, score at f(x)) where `score` is the gradient, at x, of the log density pushed along.

        The score at f(x) solves $J^T s_y = s_x - \nabla_x \log |\det J|$ and, like the one given, carries no gradient.
        Here by way of the inverse, which all have; layers that know better say so. Source: Vaitl et al. 2024.
        """
        y, log_det = self._forward_and_log_det(x, context)
        frozen = freeze((self, context))

        def back(point: Array) -> tuple[Array, Array]:
            return frozen[0]._apply("_inverse_and_log_det", point, context=frozen[1])

        (_, change), pull = jax.vjp(back, jax.lax.stop_gradient(y))
        return y, log_det, jax.lax.stop_gradient(pull((score, jnp.ones_like(change)))[0])

    def _apply(self, method: str, *points: Array, context: Array | None) -> Any:
        """A private method of this or that bijection at one point, or at points with a batch axis last.

        Args:
            method: its name.
            *points: what it takes before the context, each one point or (*shape, n).
            context: one for all, or (*context_shape, n); not looked at where the bijection takes none.
        """
        context = None if self.context_shape is None else context
        shape = self.out_shape if method == "_inverse_and_log_det" else self.in_shape
        if self.takes_batches or points[0].ndim == len(shape):
            return getattr(self, method)(*points, context)
        shared = context is None or context.ndim == 1
        axes = (*[-1] * len(points), None if shared else -1)
        return jax.vmap(getattr(self, method), in_axes=axes, out_axes=-1)(*points, context)

    def _check(self, name: str, point: Array, shape: Shape, context: Array | None) -> None:
        check_shape(name, point, shape, "batches go through jax.vmap")
        if self.context_shape is None and context is not None:
            raise ValueError(requirement("context", f"be None for {type(self).__name__}, which takes none", "an array"))
        if self.context_shape is not None:
            if context is None:
                raise ValueError(requirement("context", f"be an array of shape {self.context_shape}", "None"))
            check_shape("context", context, self.context_shape)

    def forward_and_log_det(
        self, x: Float[Array, "..."], context: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, "..."], Scalar]:
        """(f(x), log |det df/dx|) at one point.

        Raises:
            ValueError: if a shape is not that of one point, or the context is missing or unexpected.
        """
        self._check("x", x, self.in_shape, context)
        return self._forward_and_log_det(x, context)

    def inverse_and_log_det(
        self, y: Float[Array, "..."], context: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, "..."], Scalar]:
        """(f^-1(y), log |det df^-1/dy|) at one point.

        Raises:
            ValueError: if a shape is not that of one point, or the context is missing or unexpected.
        """
        self._check("y", y, self.out_shape, context)
        return self._inverse_and_log_det(y, context)

    def forward(self, x: Float[Array, "..."], context: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
        """f(x) at one point."""
        return self.forward_and_log_det(x, context)[0]

    def inverse(self, y: Float[Array, "..."], context: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
        """f^-1(y) at one point."""
        return self.inverse_and_log_det(y, context)[0]

    @property
    def inverted(self) -> "AbstractBijection":
        """The same map run the other way."""
        return self.bijection if isinstance(self, Invert) else Invert(self)


@register
class Invert(AbstractBijection):
    """A bijection run the other way: its forward is the other's inverse.

    Args:
        bijection: the bijection to turn round.
    """

    bijection: AbstractBijection
    takes_batches: ClassVar[bool] = True

    def __init__(self, bijection: AbstractBijection) -> None:
        self.bijection = bijection

    @property
    def in_shape(self) -> Shape:
        """The other's `out_shape`."""
        return self.bijection.out_shape

    @property
    def out_shape(self) -> Shape:
        """The other's `in_shape`."""
        return self.bijection.in_shape

    @property
    def context_shape(self) -> Shape | None:
        """The other's."""
        return self.bijection.context_shape

    @property
    def forward_cost(self) -> Cost:
        """The other's `inverse_cost`."""
        return self.bijection.inverse_cost

    @property
    def inverse_cost(self) -> Cost:
        """The other's `forward_cost`."""
        return self.bijection.forward_cost

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self.bijection._apply("_inverse_and_log_det", x, context=context)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self.bijection._apply("_forward_and_log_det", y, context=context)
