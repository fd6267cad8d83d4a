"""Continuously-indexed flows: a flow whose every layer also moves and scales its points by an index drawn for each."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._core import (
    Array,
    Seed,
    Shape,
    check_positive_int,
    freeze,
    numpy_rng,
    register,
    requirement,
    stack_modules,
)
from thalweg.bijections import MLP, AbstractBijection, AffineTransformer, Identity, join_context, sum_slopes
from thalweg.distributions._base import AbstractBase, normals, square, uniforms
from thalweg.distributions._distribution import AbstractAuxiliaryDistribution, AbstractDistribution

_AFFINE = AffineTransformer(max_log_scale=3.0)
"""Of indices and by them: log-scales softly within +-3."""


@register
class ConditionalNormal(eqx.Module):
    """N(m(c), e^s(c)) of each of k coordinates, m and s from one network; N(0, I) at the start.

    Args:
        size: k.
        given_size: of c.
        seed: an int or a JAX key.
        **network: of the `MLP`.
    """

    network: MLP

    def __init__(self, size: int, given_size: int, *, seed: Seed = 0, **network: Any) -> None:
        self.network = MLP(given_size, 2 * size, seed=seed, **network)

    def params(self, given: Array) -> Array:
        """Of the affine map from noise, (2, k) or (2, k, n)."""
        params = self.network(given)
        return params.reshape(2, len(params) // 2, *params.shape[1:])

    def from_noise(self, noise: Array, given: Array) -> tuple[Array, Array]:
        """(the draw that standard normals make, its log density); batches have an axis after a point's own."""
        u, log_slope = _AFFINE.forward_and_log_slope(noise, self.params(given))
        return u, _log_normal(noise) - sum_slopes(log_slope)

    def log_prob(self, u: Array, given: Array) -> Array:
        """Of u, (k,) or (k, n)."""
        noise, log_slope = _AFFINE.inverse_and_log_slope(u, self.params(given))
        return _log_normal(noise) + sum_slopes(log_slope)


def _log_prob_by(u: Array, params: Array) -> Array:
    """The sum, over a batch, of log densities of u; the normals' constants left out."""
    noise, log_slope = _AFFINE.inverse_and_log_slope(u, params)
    return (log_slope - 0.5 * square(noise)).sum()


def _log_normal(noise: Array) -> Array:
    return -0.5 * sum_slopes(square(noise)) - 0.5 * math.log(2 * math.pi) * len(noise)


@register
class IndexedLayer(eqx.Module):
    r"""One layer $z = e^{s(u)} \odot g(w) + t(u)$ with its index's two laws, $q(u | w)$ and $r(u | z)$.

    Args:
        bijection: g.
        index_size: of u.
        context_size: of what all networks read too; 0 for nothing.
        seed: an int or a JAX key.
        **network: of the three `MLP`s.
    """

    bijection: AbstractBijection
    scale_shift: MLP
    index: ConditionalNormal
    reverse: ConditionalNormal

    def __init__(
        self, bijection: AbstractBijection, index_size: int, context_size: int, *, seed: Seed = 0, **network: Any
    ) -> None:
        (size,), rng = bijection.in_shape, numpy_rng(seed)
        self.bijection = bijection
        self.scale_shift = MLP(index_size + context_size, 2 * size, seed=rng, **network)
        self.index, self.reverse = (
            ConditionalNormal(index_size, size + context_size, seed=rng, **network) for _ in range(2)
        )

    def moves(self, u: Array, context: Array | None) -> Array:
        """The parameters of the affine map by an index, (2, d) or (2, d, n)."""
        params = self.scale_shift(join_context(u, context))
        return params.reshape(2, len(params) // 2, *params.shape[1:])


@register
class ContinuouslyIndexed(AbstractAuxiliaryDistribution):
    r"""A flow of layers $z_l = e^{s_l(u_l)} \odot g_l(z_{l-1}) + t_l(u_l)$, $u_l \sim q_l(\cdot | z_{l-1})$, normal.

    What no continuous, invertible map can do, such as to part one mode in two, a mixture over infinitely many of them
    can. The density of z, an integral over all u, is only bounded; the joint one is exact,
    $q(z, u) = q_0(z_0) \prod_l q_l(u_l | z_{l-1}) / |\det \partial z_l / \partial z_{l-1}|$, and
    $r(u | z) = \prod_l r_l(u_l | z_l)$, from the last layer back, each $z_{l-1}$ the inverse of $z_l$ at $u_l$, is
    factorised as $q(u | z)$ is. Zero networks are the flow alone: every bound is tight then.

    Source: Cornish et al. 2020; Caterini et al. 2021, equations 4 to 9.

    Args:
        base: of z_0, in R^d; takes no context.
        bijections: the g_l, alike in structure and of one shape (d,); the first is applied first.
        last: a bijection after all layers, of the same shape; None for none.
        index_size: of each u_l.
        context_size: of a context that all networks read; None for no context.
        width: of the hidden layers of the networks of s and t, of q and of r.
        depth: their number.
        seed: an int or a JAX key.

    Raises:
        ValueError: if shapes or contexts do not fit one another, or the bijections differ.
    """

    base: AbstractDistribution
    layer: IndexedLayer
    last: AbstractBijection
    n_layers: int = eqx.field(static=True)
    index_size: int = eqx.field(static=True)
    context_shape: Shape | None = eqx.field(static=True)
    takes_batches: ClassVar[bool] = True

    def __init__(
        self,
        base: AbstractDistribution,
        bijections: Sequence[AbstractBijection],
        *,
        last: AbstractBijection | None = None,
        index_size: int = 1,
        context_size: int | None = None,
        width: int = 16,
        depth: int = 1,
        seed: Seed = 0,
    ) -> None:
        sizes = {"index_size": index_size, "width": width, "depth": depth}
        index_size, width, depth = (check_positive_int(name, value) for name, value in sizes.items())
        _check_parts(base, bijections, context_size)
        rng, network = numpy_rng(seed), {"width": width, "depth": depth}
        layers = [IndexedLayer(g, index_size, context_size or 0, seed=rng, **network) for g in bijections]
        self.base, self.layer = base, stack_modules(layers)
        self.last = Identity(base.shape) if last is None else last
        if self.last.in_shape != base.shape or self.last.out_shape != base.shape:
            raise ValueError(requirement("last", f"map {base.shape} to itself", self.last.in_shape))
        self.n_layers, self.index_size = len(layers), index_size
        self.context_shape = None if context_size is None else (context_size,)

    @property
    def shape(self) -> Shape:
        """(d,)."""
        return self.base.shape

    def _starts(self, key: Array) -> tuple[Array, Array, Array]:
        """(z_0, its log density, standard normals for all indices), of one key or each of many."""

        def one(key: Array) -> tuple[Array, Array, Array]:
            if not isinstance(self.base, AbstractBase):
                own, noise = jax.random.split(key)
                return *self.base._sample_and_log_q(own, None), self._noise(noise)
            # each further call of the generator costs about what a layer does
            n, shape = self.base.n_uniforms, self._noise_shape
            u = uniforms(key, n + math.prod(shape))
            w = self.base.from_uniforms(u[:n])
            return w, self.base._log_prob(w, None), normals(u[n:], shape)

        return one(key) if key.ndim == 0 else jax.vmap(one, in_axes=-1, out_axes=-1)(key)

    @property
    def _noise_shape(self) -> Shape:
        return self.n_layers, self.index_size

    def _noise(self, key: Array) -> Array:
        return normals(uniforms(key, math.prod(self._noise_shape)), self._noise_shape)

    def _through(self, step: Callable[..., Any], carry: Any, along: Array, *, inverse: bool = False) -> Any:
        """What `step(layer, carry, numbers)` gives through all layers, of each its own numbers."""
        arrays, static = eqx.partition(self.layer, eqx.is_array)

        def one(carry: Any, own: tuple[IndexedLayer, Array]) -> Any:
            return step(eqx.combine(own[0], static), carry, own[1])

        # as in `Scan`: a layer's inner numbers are cheaper computed again than kept
        one = jax.checkpoint(one, prevent_cse=False)
        return jax.lax.scan(one, carry, (arrays, along), length=self.n_layers, reverse=inverse)

    def _walk(self, key: Array, context: Array | None) -> tuple[Array, Array, Array, Array]:
        """(z, u, log q(z, u), log r(u | z)) of draws."""
        w, log_q, noise = self._starts(key)

        def step(layer: IndexedLayer, carry: tuple[Array, ...], noise: Array) -> Any:
            w, total, log_reverse = carry
            u, log_index = layer.index.from_noise(noise, join_context(w, context))
            y, log_det = layer.bijection._apply("_forward_and_log_det", w, context=context)
            z, log_slope = _AFFINE.forward_and_log_slope(y, layer.moves(u, context))
            log_reverse = log_reverse + layer.reverse.log_prob(u, join_context(z, context))
            return (z, total + log_index - log_det - sum_slopes(log_slope), log_reverse), u

        (z, log_joint, log_reverse), u = self._through(step, (w, log_q, jnp.zeros_like(log_q)), noise)
        z, log_det = self.last._apply("_forward_and_log_det", z, context=context)
        return z, u, log_joint - log_det, log_reverse

    def _walk_back(
        self, z: Array, along: Array, context: Array | None, *, draw: bool
    ) -> tuple[Array, Array, tuple[Array, Array]]:
        """(z_0, u, (log q(z, u), log r(u | z))) at z, of indices, or of those that standard normals make by r."""
        z, total = self.last._apply("_inverse_and_log_det", z, context=context)

        def step(layer: IndexedLayer, carry: tuple[Array, ...], own: Array) -> Any:
            z, log_joint, log_reverse = carry
            given = join_context(z, context)
            u, log_r = layer.reverse.from_noise(own, given) if draw else (own, layer.reverse.log_prob(own, given))
            y, log_slope = _AFFINE.inverse_and_log_slope(z, layer.moves(u, context))
            w, log_det = layer.bijection._apply("_inverse_and_log_det", y, context=context)
            log_index = layer.index.log_prob(u, join_context(w, context))
            return (w, log_joint + sum_slopes(log_slope) + log_det + log_index, log_reverse + log_r), u

        (w, log_joint, log_reverse), u = self._through(step, (z, total, jnp.zeros_like(total)), along, inverse=True)
        log_base = self.base._log_prob if w.ndim == 1 else jax.vmap(self.base._log_prob, in_axes=(-1, None))
        return w, u, (log_joint + log_base(w, None), log_reverse)

    def _sample_joint_and_log_prob(self, key: Array, context: Array | None) -> tuple[Array, Array, Array]:
        return self._walk(key, context)[:3]

    def _sample_and_log_q(self, key: Array, context: Array | None) -> tuple[Array, Array]:
        z, _, log_joint, log_reverse = self._walk(key, context)
        return z, log_joint - log_reverse

    def _log_joint(self, z: Array, u: Array, context: Array | None) -> Array:
        return self._walk_back(z, u, context, draw=False)[2][0]

    def _log_reverse(self, u: Array, z: Array, context: Array | None) -> Array:
        return self._walk_back(z, u, context, draw=False)[2][1]

    def _log_ratio(self, u: Array, z: Array, context: Array | None) -> Array:
        log_joint, log_reverse = self._walk_back(z, u, context, draw=False)[2]
        return log_joint - log_reverse

    def _sample_reverse(self, key: Array, z: Array, context: Array | None) -> Array:
        return self._walk_back(z, self._noise(key), context, draw=True)[1]

    def _sample_log_ratio(self, key: Array, z: Array, context: Array | None) -> Array:
        log_joint, log_reverse = self._walk_back(z, self._noise(key), context, draw=True)[2]
        return log_joint - log_reverse

    def _sample_and_path_log_q(self, key: Array, context: Array | None) -> tuple[Array, Array]:
        r"""By pushing the scores of log q(z, u) along with the draw: no layer is inverted.

        With a(w, u) = log q of all before + log q(u | w) - log |det dz/dw|, whose derivative at fixed z is asked for,
        $\partial_z = J^{-T} \partial_w a$ and $\partial_u = \partial_u a|_w - (\partial z / \partial u)^T \partial_z$;
        the scores of earlier indices stay as they are.
        """
        frozen, fixed = jax.lax.stop_gradient, freeze(self.base)
        w, _, noise = self._starts(key)

        def score_base(w: Array) -> Array:
            return fixed._log_prob(w, None) if w.ndim == 1 else jax.vmap(fixed._log_prob, (-1, None))(w, None)

        log_base, pull = jax.vjp(score_base, frozen(w))
        (score,) = pull(jnp.ones_like(log_base))
        # of all indices' noise at once: what log q(u | w) holds beside the slopes
        log_base = log_base + jnp.sum(jax.vmap(_log_normal)(noise), 0)

        def step(layer: IndexedLayer, carry: tuple[Array, ...], noise: Array) -> Any:
            w, score, total, along, log_reverse = carry
            index, pull_index = jax.vjp(lambda w: layer.index.params(join_context(w, context)), w)
            u, log_slope = _AFFINE.forward_and_log_slope(noise, index)
            of_u, of_index = jax.grad(_log_prob_by, (0, 1))(frozen(u), frozen(index))
            total = total - sum_slopes(log_slope)
            y, log_det, score = layer.bijection._apply(
                "_forward_with_score", w, frozen(score + pull_index(of_index)[0]), context=context
            )
            moves, pull_moves = jax.vjp(lambda u: layer.moves(u, context), u)
            (z, log_slope), pull = jax.vjp(lambda m: _AFFINE.forward_and_log_slope(y, m), moves)
            score = frozen(score * jnp.exp(-log_slope))
            of_u = frozen(of_u - pull_moves(pull((score, jnp.ones_like(y)))[0])[0])
            total = total - log_det - sum_slopes(log_slope)
            log_reverse = log_reverse + layer.reverse.log_prob(u, join_context(z, context))
            return (z, score, total, along + sum_slopes(of_u * (u - frozen(u))), log_reverse), None

        zero = jnp.zeros_like(log_base)
        (z, score, log_joint, along, log_reverse), _ = self._through(step, (w, score, log_base, zero, zero), noise)
        z, log_det, score = self.last._apply("_forward_with_score", z, score, context=context)
        along = along + sum_slopes(score * (z - frozen(z)))
        # r's own parameters keep their gradient: its score under q does not have mean zero
        return z, frozen(log_joint - log_det) + along - log_reverse


def _check_parts(base: AbstractDistribution, bijections: Sequence[AbstractBijection], context_size: int | None) -> None:
    """Raise ValueError unless they fit one another."""
    if len(base.shape) != 1 or base.context_shape is not None:
        got = f"shape {base.shape}, context_shape {base.context_shape}"
        raise ValueError(requirement("base", "be a distribution on R^d that takes no context", got))
    if context_size is not None:
        check_positive_int("context_size", context_size)
    for g in bijections:
        if g.in_shape != base.shape or g.out_shape != base.shape:
            got = f"{type(g).__name__} {g.in_shape} -> {g.out_shape}"
            raise ValueError(requirement("bijections", f"map {base.shape} to itself", got))
        if g.context_shape not in (None, (context_size,)):
            raise ValueError(requirement("bijections", f"take a context of {context_size}", g.context_shape))
