"""Gradients of the ELBO by both estimators; auxiliary distributions and their bounds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distributions_rows import (
    MARGINAL_COVARIANCE,
    MARGINAL_MEAN,
    conditional_gaussian,
    exact_augmented,
    marginal_log_prob,
)
from helpers import noised
from thalweg._core import partition_trainable, precision, read_file, write_file
from thalweg.bijections import TriangularAffine
from thalweg.distributions import Augmented, StandardNormal, Transformed

METHODS = ("sample_and_log_q", "sample_and_path_log_q")
TARGET = Transformed(StandardNormal((2,)), TriangularAffine(np.array([1.0, -0.5]), np.array([[1.2, 0], [0.4, 0.7]])))


def gradients(q, log_p, method, n=4000):
    """The gradient of log q - log p at each of n draws, (n, number of parameters)."""
    moving, rest = partition_trainable(q)

    def loss(moving, key):
        z, log_q = getattr(eqx.combine(moving, rest), method)(key)
        return log_q - log_p(z)

    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(moving, jax.random.split(jax.random.key(0), n))
    return np.concatenate([np.asarray(g).reshape(n, -1) for g in jax.tree.leaves(each)], axis=1)


def n_reverse(q):
    """How many of q's numbers are its reverse's; they come last."""
    return sum(leaf.size for leaf in jax.tree.leaves(partition_trainable(getattr(q, "reverse", None))[0]))


def exact_log_p(z):
    return TARGET.log_prob(z)


def augmented_log_p(z):
    d = z - jnp.asarray(MARGINAL_MEAN)
    return -0.5 * d @ jnp.asarray(np.linalg.inv(MARGINAL_COVARIANCE)) @ d


@pytest.mark.parametrize(
    ("exact", "log_p"), [(TARGET, exact_log_p), (exact_augmented(), augmented_log_p)], ids=["exact", "auxiliary"]
)
def test_path_gradients_have_the_same_mean_and_less_variance(exact, log_p):
    q = noised(exact, 0.1)
    full, path = (gradients(q, log_p, m) for m in METHODS)
    error = (full - path).std(axis=0) / np.sqrt(len(full))
    assert np.all(np.abs(full.mean(axis=0) - path.mean(axis=0)) <= 5 * error + 1e-12)
    # the reverse, which comes last, has no path: both estimators treat it alike
    own = slice(0, full.shape[1] - n_reverse(q))
    assert path[:, own].var(axis=0).sum() < 0.8 * full[:, own].var(axis=0).sum()
    assert np.abs(path.mean(axis=0)).max() > 0.01


def test_path_gradients_vanish_draw_by_draw_where_q_is_exact():
    np.testing.assert_allclose(gradients(TARGET, exact_log_p, "sample_and_path_log_q", 20), 0, atol=1e-10)
    assert np.abs(gradients(TARGET, exact_log_p, "sample_and_log_q", 20)).max() > 0.1


def test_path_gradients_keep_those_of_the_reverse():
    q = noised(exact_augmented(), 0.3)
    full, path = (gradients(q, augmented_log_p, m, 10) for m in METHODS)
    assert full.shape == path.shape
    reverse = n_reverse(q)
    np.testing.assert_allclose(full[:, -reverse:], path[:, -reverse:], rtol=1e-9, atol=1e-12)
    assert np.abs(path[:, -reverse:]).max() > 0.01


def test_an_exact_reverse_makes_every_bound_the_marginal():
    q = exact_augmented()
    x, bounds, again, draws, log_q = eqx.filter_jit(
        lambda q: (
            *(drawn := q.sample_with_bounds(0, 40, n=3)),
            q.log_prob_bounds(1, drawn[0], n=2),
            *q.sample_and_log_q(0, 40),
        )
    )(q)
    truth = marginal_log_prob(x)
    np.testing.assert_allclose(bounds.lower, truth, atol=1e-8)
    np.testing.assert_allclose(bounds.upper, truth, atol=1e-8)
    np.testing.assert_allclose(again.lower, truth, atol=1e-8)
    assert again.upper is None
    np.testing.assert_allclose(log_q, marginal_log_prob(draws), atol=1e-8)


def inexact():
    return Augmented(exact_augmented().joint, conditional_gaussian([0.1, 0.2], 0.0, 1.4))


def test_bounds_bracket_the_marginal_and_tighten():
    q, gaps = inexact(), []
    for n in (1, 64):
        x, bounds = eqx.filter_jit(lambda q, n=n: q.sample_with_bounds(0, 4000, n=n))(q)
        truth = marginal_log_prob(x)
        for above in (truth - np.asarray(bounds.lower), np.asarray(bounds.upper) - truth):
            assert above.mean() > -5 * above.std() / np.sqrt(len(above))
        gaps.append(float((bounds.upper - bounds.lower).mean()))
    assert gaps[0] > 0.3 and 0 < gaps[1] < 0.1

    # at points from elsewhere too
    points = jnp.asarray(np.random.default_rng(0).normal(0, 2, (2000, 2)))
    below = marginal_log_prob(points) - np.asarray(eqx.filter_jit(lambda q: q.log_prob_bounds(0, points, n=4).lower)(q))
    assert below.mean() > 5 * below.std() / np.sqrt(len(below))


def test_extended_weights_are_proper():
    # E[p(z) / (q(z, u) / r(u | z))] = 1 for a normalised p, whatever r
    q = inexact()
    z, log_q = eqx.filter_jit(lambda q: q.sample_and_log_q(0, 100_000))(q)
    p = Transformed(StandardNormal((2,)), TriangularAffine(np.array([0.8, -0.3]), np.array([[0.8, 0], [0.2, 0.5]])))
    weights = np.exp(np.asarray(eqx.filter_jit(p.log_prob)(z) - log_q))
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(len(weights))


def test_shapes_and_files_of_an_auxiliary_distribution(tmp_path):
    q = inexact()
    shapes = jax.tree.map(
        lambda leaf: leaf.shape,
        eqx.filter_eval_shape(
            lambda q: (
                q.sample(0),
                q.sample_and_log_q(0, (3, 4)),
                q.log_prob_bounds(0, jnp.zeros((3, 4, 2)), n=2).lower,
                tuple(q.sample_with_bounds(0, (3,), n=2)[1]),
            ),
            q,
        ),
    )
    assert shapes == ((2,), ((3, 4, 2), (3, 4)), (3, 4), ((3,), (3,)))
    keys = jax.random.split(jax.random.key(2), 5)
    together, alone = eqx.filter_jit(lambda q: (q.sample(jax.random.key(2), 5), q.sample(keys[3])))(q)
    np.testing.assert_allclose(together[3], alone, rtol=1e-12)
    again = read_file(write_file(tmp_path / "q.thalweg", "flow", q), "flow")
    assert bool(eqx.tree_equal(again, q, typematch=True))


def test_an_auxiliary_distribution_is_finite_in_single_precision():
    with precision("float32"):
        q = noised(exact_augmented(), 0.2)
        moving, rest = partition_trainable(q)

        def bound(m, x):
            return eqx.combine(m, rest).log_prob_bounds(0, x, n=3).lower

        points = jnp.asarray([[0, 0], [1e5, -1e5], [1e18, 1e18], [-1e18, 1e-30]], jnp.float32)
        out = jax.jit(jax.vmap(jax.value_and_grad(bound, (0, 1)), in_axes=(None, 0)))(moving, points)
        for path, leaf in jax.tree_util.tree_leaves_with_path(out):
            assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


def test_parts_must_fit():
    q = exact_augmented()
    with pytest.raises(ValueError, match=r"`reverse` must have shape \(k,\) and context_shape \(d,\)"):
        Augmented(q.joint, StandardNormal((1,)))
    with pytest.raises(ValueError, match=r"`reverse` must have shape \(k,\) and context_shape \(d,\)"):
        Augmented(StandardNormal((4,)), q.reverse)
