"""Continuously-indexed flows: the joint density by a dense Jacobian, bounds by quadrature, gradients both ways."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from scipy.special import logsumexp

from bijections_rows import SMALL
from helpers import noised
from thalweg._core import partition_trainable, precision, read_file, write_file
from thalweg.bijections import (
    AffineTransformer,
    Autoregressive,
    Chain,
    Coupling,
    Identity,
    Permutation,
    Planar,
    Scan,
    TriangularAffine,
)
from thalweg.distributions import (
    AbstractAuxiliaryDistribution,
    ContinuouslyIndexed,
    StandardNormal,
    StudentT,
    Transformed,
)

LAST = TriangularAffine(np.array([1.0, -0.5, 0.3]), np.array([[1.2, 0, 0], [0.4, 0.7, 0], [-0.6, 0.9, 0.8]]))


def coupling(context_size=None):
    layer = Coupling(3, AffineTransformer(), context_size=context_size, **SMALL)
    return Chain([Permutation(np.array([2, 0, 1])), layer])


INNER = {
    "coupling": coupling,
    "autoregressive": lambda: Autoregressive(3, AffineTransformer(), **SMALL),
    "planar": lambda: Planar(3, seed=1),
}


def indexed(name: str, context_size: int | None = None, sigma: float = 0.2) -> ContinuouslyIndexed:
    inner = [coupling(context_size) if context_size else INNER[name]() for _ in range(2)]
    base = StudentT((3,), 8.0)
    sizes = {"index_size": 2, "context_size": context_size, "width": 6, "depth": 1}
    return noised(ContinuouslyIndexed(base, inner, last=LAST, **sizes), sigma)


def context_of(q) -> Any:
    return None if q.context_shape is None else jnp.linspace(-1, 1, q.context_shape[0])


cases = pytest.mark.parametrize(
    ("name", "context_size"),
    [
        pytest.param("coupling", None, marks=pytest.mark.slow),
        ("coupling", 2),
        pytest.param("autoregressive", None, marks=pytest.mark.slow),
        pytest.param("planar", None, marks=pytest.mark.slow),
    ],
)


@cases
def test_the_joint_density_by_a_dense_jacobian(name, context_size):
    q = indexed(name, context_size)
    context, rng = context_of(q), np.random.default_rng(0)
    noise = jnp.asarray(rng.standard_normal((2, 2)))
    w = jnp.asarray(rng.standard_normal(3))

    def forward(flat):
        """(w, noise) to (z, u), layer by layer, with nothing but the layers' own parts."""
        z, noise, us = flat[:3], flat[3:].reshape(2, 2), []
        for i in range(2):
            layer: Any = jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, q.layer)
            given = z if context is None else jnp.concatenate([z, context])
            mean_scale = layer.index.network(given)
            u = noise[i] * jnp.exp(3 * jnp.tanh(mean_scale[:2] / 3)) + mean_scale[2:]
            moves = layer.scale_shift(u if context is None else jnp.concatenate([u, context]))
            inner = None if layer.bijection.context_shape is None else context
            z = layer.bijection.forward(z, inner) * jnp.exp(3 * jnp.tanh(moves[:3] / 3)) + moves[3:]
            us.append(u)
        return jnp.concatenate([q.last.forward(z), *us])

    flat = jnp.concatenate([w, noise.ravel()])
    moved = jax.jit(forward)(flat)
    log_det = np.linalg.slogdet(jax.jit(jax.jacfwd(forward))(flat))[1]
    expected = q.base.log_prob(w) + stats.norm.logpdf(noise).sum() - log_det
    found = eqx.filter_jit(q._log_joint)(moved[:3], moved[3:].reshape(2, 2), context)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@cases
def test_every_walk_says_the_same(name, context_size):
    q = indexed(name, context_size)
    context, keys = context_of(q), jax.random.split(jax.random.key(1), 3)

    @eqx.filter_jit
    def every_way(q):
        z, u, log_joint, log_reverse = q._walk(keys[0], context)
        back = q._log_joint(z, u, context), q._log_reverse(u, z, context), q._log_ratio(u, z, context)
        drawn = q._sample_reverse(keys[1], z, context)
        ratio = q._log_ratio(drawn, z, context), q._sample_log_ratio(keys[1], z, context)
        return log_joint, log_reverse, back, ratio, q.sample_and_log_q(keys, context=context)

    log_joint, log_reverse, back, ratio, (z, log_q) = every_way(q)
    np.testing.assert_allclose(back, (log_joint, log_reverse, log_joint - log_reverse), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(*ratio, rtol=1e-9)
    # a batch is its draws one by one
    one_z, one_log_q = eqx.filter_jit(q.sample_and_log_q)(keys[2], context=context)
    np.testing.assert_allclose(z[2], one_z, rtol=1e-10)
    np.testing.assert_allclose(log_q[2], one_log_q, rtol=1e-9)
    np.testing.assert_allclose(log_q[0], log_joint - log_reverse, rtol=1e-9)


@cases
def test_the_pushed_path_gradient_is_that_of_the_inverse(name, context_size):
    q = indexed(name, context_size)
    context, keys = context_of(q), jax.random.split(jax.random.key(2), 4)
    moving, rest = partition_trainable(q)

    def by_inverse(moving, key):
        return AbstractAuxiliaryDistribution._sample_and_path_log_q(eqx.combine(moving, rest), key, context)[1]

    def pushed(moving):
        return eqx.combine(moving, rest).sample_and_path_log_q(keys, context=context)[1].sum()

    value, gradient = jax.jit(jax.value_and_grad(pushed))(moving)
    alone = jax.jit(jax.value_and_grad(by_inverse))
    each = [alone(moving, key) for key in keys]
    np.testing.assert_allclose(value, sum(v for v, _ in each), rtol=1e-9)
    flat, *others = (np.concatenate(list(map(np.ravel, jax.tree.leaves(g)))) for g in (gradient, *(g for _, g in each)))
    others = np.sum(others, axis=0)
    np.testing.assert_allclose(flat, others, rtol=1e-6, atol=1e-8 * np.abs(others).max())


def test_it_starts_as_the_flow_alone():
    inner = [noised(coupling()) for _ in range(2)]
    base = StandardNormal((3,))
    flow = Transformed(base, Chain([Scan(inner), LAST]))
    q = ContinuouslyIndexed(base, inner, last=LAST)
    x, bounds = eqx.filter_jit(lambda q: q.sample_with_bounds(0, 30, n=2))(q)
    truth = eqx.filter_jit(flow.log_prob)(x)
    np.testing.assert_allclose(bounds.lower, truth, atol=1e-9)
    np.testing.assert_allclose(bounds.upper, truth, atol=1e-9)


def in_one_dimension(seed: int = 5) -> ContinuouslyIndexed:
    """Its density is an integral over one index: quadrature knows it."""
    return noised(ContinuouslyIndexed(StandardNormal((1,)), [Identity((1,))], width=4, depth=2), 0.4, seed)


def log_density_by_quadrature(q, z) -> np.ndarray:
    u = np.linspace(-10, 10, 501)
    rows = jnp.asarray(np.reshape(z, (-1, 1)))
    joint = jax.vmap(jax.vmap(lambda z, u: q._log_joint(z, u[None, None], None), (None, 0)), (0, None))
    return logsumexp(np.asarray(eqx.filter_jit(joint)(rows, jnp.asarray(u))), axis=1) + np.log(u[1] - u[0])


def test_bounds_bracket_the_density_and_tighten():
    q, gaps = in_one_dimension(), []
    grid = np.linspace(-30, 30, 1201)
    mass = np.exp(log_density_by_quadrature(q, grid)) * (grid[1] - grid[0])
    assert abs(mass.sum() - 1) < 1e-3
    x, bounds = eqx.filter_jit(lambda q: q.sample_with_bounds(0, 1500, n=1))(q)
    assert stats.kstest(np.ravel(x), lambda v: np.interp(v, grid, np.cumsum(mass))).pvalue > 1e-6
    truth = log_density_by_quadrature(q, x)
    for n in (1, 32):
        bounds = eqx.filter_jit(lambda q, n=n: q.sample_with_bounds(0, 1500, n=n)[1])(q)
        for above in (truth - np.asarray(bounds.lower), np.asarray(bounds.upper) - truth):
            assert above.mean() > -5 * above.std() / np.sqrt(len(above))
        gaps.append(float(np.mean(bounds.upper - bounds.lower)))
    assert gaps[0] > 0.05 and 0 < gaps[1] < gaps[0] / 5


def test_the_bound_is_below_the_elbo_and_that_below_the_evidence_and_a_better_reverse_closes_the_gap():
    """Of a normal of log evidence 0.7; the ELBO by quadrature over the index."""
    q, n = in_one_dimension(), 2000
    keys = jax.random.split(jax.random.key(7), n)

    def log_p(z):
        return stats.norm.logpdf(np.ravel(z), -0.5, 1.0) + 0.7

    def bound_and_elbo(q):
        z, log_q = eqx.filter_jit(lambda q: q.sample_and_log_q(keys))(q)
        terms = log_p(z) - np.asarray(log_q)
        exact = log_p(z) - log_density_by_quadrature(q, z)
        return terms.mean(), exact.mean(), (exact - terms).std() / np.sqrt(n), exact.std() / np.sqrt(n)

    def learn(q):
        """Fit r to draws of q(u | z), which leaves q as it is."""
        z, u, _, _ = eqx.filter_jit(jax.vmap(lambda k: q._walk(k, None)))(keys)
        moving, rest = partition_trainable(q.layer.reverse)
        adam = optax.adam(0.03)

        @jax.jit
        def step(_, carry):
            def loss(moving):
                trial = eqx.tree_at(lambda q: q.layer.reverse, q, eqx.combine(moving, rest))
                return -jax.vmap(lambda u, z: trial._log_reverse(u, z, None))(u, z).mean()

            moving, state = carry
            gradient = jax.grad(loss)(moving)
            with jax.numpy_dtype_promotion("standard"):  # Optax mixes ints and floats
                updates, state = adam.update(gradient, state)
                return optax.apply_updates(moving, updates), state

        found, _ = jax.lax.fori_loop(0, 300, step, (moving, adam.init(moving)))
        return eqx.tree_at(lambda q: q.layer.reverse, q, eqx.combine(found, rest))

    bound, elbo, gap_error, error = bound_and_elbo(q)
    better, same, better_error, _ = bound_and_elbo(learn(q))
    assert bound < elbo - 5 * gap_error and elbo < 0.7 - 5 * error
    assert same == pytest.approx(elbo, abs=1e-9)
    assert better < same + 5 * better_error
    assert same - better < 0.35 * (elbo - bound)


def test_it_is_finite_in_single_precision_and_survives_a_file(tmp_path):
    with precision("float32"):
        q = indexed("coupling")
        moving, rest = partition_trainable(q)

        def bound(m, x):
            return eqx.combine(m, rest).log_prob_bounds(0, x, n=3).lower

        points = jnp.asarray(np.outer([0, 1e5, 1e18, -1e18], np.ones(3)), jnp.float32)
        out = jax.jit(jax.vmap(jax.value_and_grad(bound, (0, 1)), in_axes=(None, 0)))(moving, points)
        for path, leaf in jax.tree_util.tree_leaves_with_path(out):
            assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        again = read_file(write_file(tmp_path / "q.thalweg", "flow", q), "flow")
        assert bool(eqx.tree_equal(again, q, typematch=True))


def test_shapes():
    q = indexed("coupling", 2)

    def shapes(q):
        contexts = jnp.zeros((4, 2))
        z, log_q = q.sample_and_log_q(0, 5, contexts)
        return z, log_q, q.log_prob_bounds(0, z, 2, contexts).lower, q.sample_and_path_log_q(0, (), contexts)[0]

    found = [leaf.shape for leaf in eqx.filter_eval_shape(shapes, q)]
    assert found == [(5, 4, 3), (5, 4), (5, 4), (4, 3)]


def test_parts_must_fit():
    base, inner = StandardNormal((3,)), coupling()
    with pytest.raises(ValueError, match=r"`bijections` must map \(3,\) to itself, got Planar \(2,\)"):
        ContinuouslyIndexed(base, [Planar(2)])
    with pytest.raises(ValueError, match="`bijections` must take a context of 4, got"):
        ContinuouslyIndexed(base, [coupling(2)], context_size=4)
    with pytest.raises(ValueError, match=r"`base` must be a distribution on R\^d"):
        ContinuouslyIndexed(StandardNormal(()), [inner])
    with pytest.raises(ValueError, match=r"`last` must map \(3,\) to itself"):
        ContinuouslyIndexed(base, [inner], last=TriangularAffine(np.zeros(2), np.eye(2)))
    with pytest.raises(ValueError, match="`layers` must all have the same structure"):
        ContinuouslyIndexed(base, [inner, Planar(3)])
    with pytest.raises(ValueError, match="`index_size` must be"):
        ContinuouslyIndexed(base, [inner], index_size=0)
