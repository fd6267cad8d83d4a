"""Trainable maps of each coordinate by itself."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Cost, Scalar, Shape, check_positive_int, from_numpy, register, requirement
from thalweg.bijections._bijection import AbstractBijection
from thalweg.bijections._transformers import AbstractTransformer, sum_slopes

_LOG_LIMIT = 60.0
_LEAST_SD = 1e-6


@register
class Elementwise(AbstractBijection):
    """Each coordinate through a transformer with trainable numbers of its own: what triangular flows bend by.

    Args:
        size: d, the point's length.
        transformer: the map of each coordinate.
        first: how many are mapped, the rest staying as they are; all by default.

    Raises:
        ValueError: for a size below 1, or a part longer than the whole.
    """

    transformer: AbstractTransformer
    params: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, size: int, transformer: AbstractTransformer, *, first: int | None = None) -> None:
        size = check_positive_int("size", size)
        first = size if first is None else first
        if not 0 <= first <= size:
            raise ValueError(requirement("first", f"be from 0 to size = {size}", first))
        self.transformer, self.in_shape = transformer, (size,)
        self.params = from_numpy(np.zeros((transformer.n_params, first)))

    @property
    def out_shape(self) -> Shape:
        """(d,)."""
        return self.in_shape

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        return self._run(x, self.transformer.forward_and_log_slope)

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        return self._run(y, self.transformer.inverse_and_log_slope)

    def _run(self, point: Array, method: Callable[[Array, Array], tuple[Array, Array]]) -> tuple[Array, Scalar]:
        first = self.params.shape[1]
        moved, log_slope = method(point[:first], self.params)
        return jnp.concatenate([moved, point[first:]]), sum_slopes(log_slope)


@register
class ActNorm(AbstractBijection):
    r"""$y = e^{s} x + b$, one s and b a channel (the last axis), trainable; the identity as built.

    `ActNorm.fitted` starts it so that given points come out with mean 0 and sd 1 in every channel.
    Source: Kingma and Dhariwal 2018, section 3.1.

    Args:
        shape: of a point, channels last; or how many channels there are.
    """

    log_scale: Array
    bias: Array
    in_shape: Shape = eqx.field(static=True)
    context_shape: ClassVar[Shape | None] = None
    forward_cost: ClassVar[Cost] = "direct"
    inverse_cost: ClassVar[Cost] = "direct"

    def __init__(self, shape: Shape | int) -> None:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not shape:
            raise ValueError(requirement("shape", "have at least one axis", shape))
        self.log_scale, self.bias = (from_numpy(np.zeros(shape[-1])) for _ in range(2))
        self.in_shape = shape

    @classmethod
    def fitted(cls, points: Any) -> "ActNorm":
        """The map that standardises these points, (n, *shape), channel by channel.

        Raises:
            ValueError: if there are no points, or one is not finite.
        """
        x = np.asarray(points, float)
        if x.ndim < 2 or not len(x) or not np.isfinite(x).all():
            raise ValueError(requirement("points", "be a batch of finite points, (n, *shape)", f"shape {x.shape}"))
        flat = x.reshape(-1, x.shape[-1])
        sd = np.maximum(flat.std(0), _LEAST_SD)
        new = cls(x.shape[1:])
        start = from_numpy(-np.log(sd)), from_numpy(-flat.mean(0) / sd)
        return eqx.tree_at(lambda a: (a.log_scale, a.bias), new, start)

    @property
    def out_shape(self) -> Shape:
        """As `in_shape`."""
        return self.in_shape

    def _channels(self, point: Array) -> tuple[Array, Array, Scalar]:
        """(s, b) along the last axis, and the log-determinant."""
        axes = (1,) * (point.ndim - 1) + (-1,)
        s = jnp.clip(self.log_scale, -_LOG_LIMIT, _LOG_LIMIT)
        return s.reshape(axes), self.bias.reshape(axes), s.sum() * (point.size // s.size)

    def _forward_and_log_det(self, x: Array, context: Array | None) -> tuple[Array, Scalar]:
        s, b, log_det = self._channels(x)
        return x * jnp.exp(s) + b, log_det

    def _inverse_and_log_det(self, y: Array, context: Array | None) -> tuple[Array, Scalar]:
        s, b, log_det = self._channels(y)
        return (y - b) * jnp.exp(-s), -log_det
