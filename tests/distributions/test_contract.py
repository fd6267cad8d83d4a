"""The contract of every exact distribution, over one table of rows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from distributions_rows import ROWS
from helpers import count_compiles, others_slow
from thalweg._core import partition_trainable, precision, read_file, write_file
from thalweg.bijections import AffineTransformer, Coupling, Planar
from thalweg.distributions import (
    LowRankNormal,
    Normal,
    StandardNormal,
    StudentT,
    TrainableStudentT,
    Transformed,
    UniformBox,
)

rows = pytest.mark.parametrize("row", others_slow(ROWS), ids=str)
FIVE_SIGMA = 5.7e-7
"""The two-sided tail beyond five standard deviations."""


def context_of(q, batch=()) -> Any:
    if q.context_shape is None:
        return None
    return jnp.asarray(np.random.default_rng(5).standard_normal((*batch, *q.context_shape)))


@eqx.filter_jit
def log_prob(q, x, context):
    return q.log_prob(x, context)


@eqx.filter_jit
def draw(q, n, context):
    return q.sample_and_log_prob(1, n, context)


def grid_density(q):
    """Points along one axis, x = sinh(t) so that heavy tails fit, and the mass of each cell (n,) or (n, n)."""
    t = np.linspace(-9, 9, 701)
    x, cell = np.sinh(t), np.cosh(t) * (t[1] - t[0])
    d = int(np.prod(q.shape))
    points = np.stack(np.meshgrid(*[x] * d, indexing="ij"), axis=-1).reshape(*[x.size] * d, *q.shape)
    density = np.exp(log_prob(q, jnp.asarray(points), context_of(q)))
    return x, density * (cell if d == 1 else cell[:, None] * cell)


@rows
def test_density_integrates_to_one_and_draws_follow_it(row):
    q = row.build()
    x, mass = grid_density(q)
    assert abs(mass.sum() - 1) < 2e-4

    draws = np.asarray(draw(q, 20_000, context_of(q))[0]).reshape(20_000, -1)
    for axis in range(mass.ndim):
        marginal = mass.sum(axis=1 - axis) if mass.ndim == 2 else mass
        cumulative = np.cumsum(marginal) - marginal / 2
        assert stats.kstest(draws[:, axis], lambda v, c=cumulative: np.interp(v, x, c)).pvalue > FIVE_SIGMA
    if mass.ndim == 2:  # what marginals do not see
        for f in (lambda a, b: np.cos(a - b), lambda a, b: np.tanh(a * b), lambda a, b: np.sin(a + 2 * b)):
            expected, found = (f(x[:, None], x) * mass).sum(), f(*draws.T)
            assert abs(found.mean() - expected) < 5 * found.std() / np.sqrt(len(found)) + 2e-4


@pytest.mark.parametrize("row", [r for r in ROWS if r.scipy], ids=str)
def test_against_scipy(row):
    q = row.build()
    x = 3 * np.random.default_rng(0).standard_normal((50, *q.shape))
    np.testing.assert_allclose(log_prob(q, jnp.asarray(x), None), row.scipy(x), rtol=1e-10)


@rows
def test_the_draws_own_log_prob(row):
    q = row.build()
    context = context_of(q)

    @eqx.filter_jit
    def every_way(q, key):
        methods = (q.sample, q.sample_and_log_q, q.sample_and_path_log_q, q.sample_and_log_prob)
        return [method(key, 50, context) for method in methods]

    x, *with_log_q = every_way(q, jax.random.key(1))
    for other, log_q in with_log_q:
        np.testing.assert_allclose(other, x, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(log_q, log_prob(q, x, context), rtol=1e-9, atol=1e-9)
    assert not np.allclose(every_way(q, jax.random.key(2))[0], x)


@rows
def test_draw_i_is_made_of_key_i(row):
    q = row.build()
    context, key = context_of(q), jax.random.key(3)
    keys = jax.random.split(key, (2, 3))
    together, alone = eqx.filter_jit(
        lambda q, c: (q.sample(key, (2, 3), c), jnp.stack([q.sample(keys[0, 0], (), c), q.sample(keys[1, 2], (), c)]))
    )(q, context)
    np.testing.assert_allclose(together[0, 0], alone[0], rtol=1e-12)
    np.testing.assert_allclose(together[1, 2], alone[1], rtol=1e-12)
    assert len(np.unique(together)) == together.size


@rows
def test_shapes_of_batches(row):
    q = row.build()

    def shapes(function, *args):
        return jax.tree.map(lambda leaf: leaf.shape, eqx.filter_eval_shape(function, *args))

    for shape in ((), 3, (2, 3), (1,)):
        axes = (shape,) if isinstance(shape, int) else shape
        assert shapes(q.sample_and_log_prob, 0, shape, context_of(q)) == ((*axes, *q.shape), axes)
        assert shapes(q.log_prob, jnp.zeros((*axes, *q.shape)), context_of(q)) == axes


def test_batches_of_contexts():
    q = next(row for row in ROWS if row.note == "spline-context").build()
    contexts = context_of(q, (4,))
    x, together = draw(q, (2, 3), contexts)
    assert x.shape == (2, 3, 4, 2) and together.shape == (2, 3, 4)
    np.testing.assert_allclose(together[1, 2, 3], log_prob(q, x[1, 2, 3], contexts[3]), rtol=1e-9)
    one_point = log_prob(q, x[0, 0, 0], contexts)
    assert one_point.shape == (4,)
    np.testing.assert_allclose(one_point[2], log_prob(q, x[0, 0, 0], contexts[2]), rtol=1e-9)
    assert abs(one_point[2] - one_point[0]) > 1e-3


@rows
def test_values_and_gradients_are_finite_in_single_precision(row):
    with precision("float32"):
        q = row.build()
        context = None if q.context_shape is None else jnp.ones(q.context_shape)
        d = int(np.prod(q.shape))
        sizes = [0, 1e-30, 1e5, 1e18, -1e18, 1e30]
        points = np.stack([s * np.ones(d) for s in sizes] + [s * np.eye(d)[0] for s in sizes])
        points = jnp.asarray(points.reshape(-1, *q.shape), jnp.float32)
        moving, rest = partition_trainable(q)

        def one(x):
            return jax.value_and_grad(lambda m, x: eqx.combine(m, rest).log_prob(x, context), (0, 1))(moving, x)

        def a_draw(key):
            def run(m):
                return eqx.combine(m, rest).sample_and_log_q(key, (), context)

            value, pull = jax.vjp(run, moving)
            return value, pull(jax.tree.map(jnp.ones_like, value))

        out = jax.jit(jax.vmap(one))(points), jax.jit(jax.vmap(a_draw))(jax.random.split(jax.random.key(0), 100))
        for path, leaf in jax.tree_util.tree_leaves_with_path(out):
            assert leaf.dtype == jnp.float32
            allowed = np.isfinite(leaf) | (row.bounded & np.isneginf(leaf))
            assert allowed.all(), jax.tree_util.keystr(path)


@rows
def test_files_keep_every_bit(row, tmp_path):
    q = row.build()
    again = read_file(write_file(tmp_path / "q.thalweg", "flow", q), "flow")
    assert bool(eqx.tree_equal(again, q, typematch=True))


@rows
def test_messages_at_the_door(row):
    q = row.build()
    if q.shape != ():  # every array is a batch of scalars
        with pytest.raises(ValueError, match=r"`x` must have shape \(\.\.\., \d\), got"):
            q.log_prob(jnp.ones((*q.shape, 7)), context_of(q))
    if q.context_shape is None:
        with pytest.raises(ValueError, match=r"`context` must be None, since nothing conditions it"):
            q.sample(0, 2, jnp.ones(3))
    else:
        with pytest.raises(ValueError, match=r"`context` must have shape \(2,\), got None"):
            q.sample(0, 2)
        with pytest.raises(ValueError, match=r"`context` must have shape \(\.\.\., 2\), got \(3,\)"):
            q.log_prob(jnp.ones(q.shape), jnp.ones(3))


@pytest.mark.parametrize("nu", [0.5, 2.0, 5.5, 30.0, 300.0])
def test_student_t_draws_have_its_margins(nu):
    """By the Kolmogorov-Smirnov distance, and by the share beyond a far quantile, which that does not see."""
    x = np.asarray(StudentT((2,), nu).sample(jax.random.key(0), (200_000,)))
    for margin in x.T:
        assert stats.kstest(margin, stats.t(nu).cdf).pvalue > 1e-4
        assert abs(np.mean(np.abs(margin) > stats.t(nu).isf(5e-4)) - 1e-3) < 5 * np.sqrt(1e-3 / 200_000)


def test_messages_of_constructors():
    for nu, got in ((0.0, "0.0"), (np.inf, "inf"), (np.nan, "nan"), ("a", "'a'")):
        with pytest.raises(
            ValueError, match=rf"`degrees_of_freedom` must be a finite number of at least 0\.5, got {got}"
        ):
            StudentT((2,), nu)
    for base in (StudentT, StandardNormal):
        with pytest.raises(ValueError, match=r"`shape` must be a tuple of sizes, got 3; write \(3,\)"):
            base(3)
        with pytest.raises(ValueError, match=r"`shape` must be a whole number of at least 1, got -1"):
            base((2, -1))
    with pytest.raises(ValueError, match=r"`scale` must be positive, of shape \(2,\), got -1 in it"):
        Normal([0.0, 0.0], [1.0, -1.0])
    for scale, got in ((1e30, r"1e\+30"), (1e-40, "1e-40")):
        with pytest.raises(ValueError, match=rf"`scale` must lie between 8.8e-27 and 1.1e\+26, got {got} in it"):
            Normal([0.0], [scale])
    with pytest.raises(ValueError, match="`loc` must be an array of numbers, got 'a'"):
        Normal("a", 1.0)
    with pytest.raises(ValueError, match=r"`factor` must have shape \(2, k\), k >= 1, got \(3, 1\)"):
        LowRankNormal([0.0, 0.0], [1.0, 1.0], np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"`degrees_of_freedom` must lie between 0\.5 and 200, one number or of shape"):
        TrainableStudentT((2,), 1000.0)
    with pytest.raises(ValueError, match="`low` must be below `high`, of the same shape"):
        UniformBox([0.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="`high` must be finite"):
        UniformBox(0.0, np.inf)
    with pytest.raises(ValueError, match=r"`bijection` must take points of shape \(3,\), got \(2,\)"):
        Transformed(StandardNormal((3,)), Planar(2))
    conditional = Transformed(StandardNormal((2,)), Coupling(2, AffineTransformer(), context_size=1))
    with pytest.raises(ValueError, match=r"`base` must take no context"):
        Transformed(conditional, Planar(2))
    with pytest.raises(ValueError, match="`seed` must be an int or a JAX key"):
        StandardNormal((2,)).sample("seed")
    with pytest.raises(ValueError, match="`shape` must be a whole number of at least 1, got 0"):
        StandardNormal((2,)).sample(0, 0)


BASES = [row for row in ROWS if row.export != "Transformed"]


@pytest.mark.parametrize("row", BASES, ids=str)
def test_building_compiles_nothing(row):
    jax.clear_caches()
    with count_compiles() as compiles:
        row.build()
    assert compiles.count == 0
