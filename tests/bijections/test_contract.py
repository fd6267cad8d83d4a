"""The contract of every bijection, over one table of rows."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bijections_rows import NETWORKS, ROWS, TRANSFORMERS, context_of, point
from helpers import count_compiles, noised, others_slow
from thalweg._core import Skeleton, partition_trainable, precision, read_file, write_file
from thalweg.bijections import Hyper, Planar

rows = pytest.mark.parametrize("row", ROWS, ids=str)
# what compiles long: one row an export among the fast tests
costly_rows = pytest.mark.parametrize("row", others_slow(ROWS), ids=str)
TOLERANCE = 1e-8
SIZES = (0.0, 1e-30, 1e5, 1e18, 1e30)


@eqx.filter_jit
def forward(bijection, x, context):
    return bijection.forward_and_log_det(x, context)


@eqx.filter_jit
def forward_of_rows(bijection, x, context):
    return jax.vmap(bijection.forward_and_log_det, in_axes=(0, None))(x, context)


@eqx.filter_jit
def inverse(bijection, y, context):
    return bijection.inverse_and_log_det(y, context)


@eqx.filter_jit
def jacobians(bijection, x, context, reference):
    """Of f in the coordinates of its log-determinant, and of the inverse after f, forward and reverse mode."""

    def there(x):
        y = bijection.forward(x.reshape(bijection.in_shape), context)
        return (y if reference is None else reference(y)).ravel()

    def there_and_back(x):
        y = bijection.forward(x.reshape(bijection.in_shape), context)
        return bijection.inverse(y, context).ravel()

    return jax.jacfwd(there)(x.ravel()), jax.jacfwd(there_and_back)(x.ravel()), jax.jacrev(there_and_back)(x.ravel())


def volume(jacobian):
    """log of the volume of the image of the unit cube: log |det J| where J is square."""
    return 0.5 * np.linalg.slogdet(jacobian.T @ jacobian)[1]


@costly_rows
def test_both_directions_and_their_jacobians(row):
    f = noised(row.build())
    context = context_of(f, 0)
    for seed in (0, 1):
        x = point(f.in_shape, seed)
        y, log_det = forward(f, x, context)
        assert y.shape == f.out_shape and log_det.shape == ()
        back, back_log_det = inverse(f, y, context)
        np.testing.assert_allclose(back, x, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(back_log_det, -log_det, rtol=TOLERANCE, atol=TOLERANCE)
        y = y if row.constrained else point(f.out_shape, seed + 2)
        again = forward(f, inverse(f, y, context)[0], context)[0]
        np.testing.assert_allclose(again, y, rtol=TOLERANCE, atol=TOLERANCE)

    there, round_trip, round_trip_reverse = jacobians(f, x, context, row.reference)
    np.testing.assert_allclose(log_det, volume(np.asarray(there)), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(round_trip, np.eye(x.size), atol=1e-7)
    np.testing.assert_allclose(round_trip_reverse, np.eye(x.size), atol=1e-7)


@eqx.filter_jit
def pushed_scores(bijection, x, context):
    """Of N(0, I) pushed through f: as f pushes it along, and by differentiating the density at f(x)."""
    y, log_det, score = bijection._forward_with_score(x, -x, context)

    def log_q(y):
        back, log_det = bijection.inverse_and_log_det(y, context)
        return -0.5 * jnp.sum(back**2) + log_det

    frozen = jax.lax.stop_gradient(-x)
    path_gradient = jax.grad(lambda x: bijection._forward_with_score(x, frozen, context)[2].sum())(x)
    return (y, log_det), score, jax.grad(log_q)(y), path_gradient


@costly_rows
def test_scores_are_pushed_along(row):
    f = noised(row.build())
    if f.in_shape != f.out_shape and row.constrained:
        pytest.skip("the image is a curved set: a score there depends on the coordinates chosen")
    context, x = context_of(f, 0), point(f.in_shape, 0)
    values, score, expected, gradient = pushed_scores(f, x, context)
    for value, plain in zip(values, forward(f, x, context), strict=True):
        np.testing.assert_allclose(value, plain, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(score, expected, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(gradient, 0)


@costly_rows
def test_jit_vmap_and_plain_agree_and_nothing_is_compiled_twice(row):
    f = noised(row.build())
    context = context_of(f, 0)
    x = point(f.in_shape, 0)
    jitted = forward(f, x, context)
    other, other_x = noised(row.build(), seed=1), point(f.in_shape, 3)
    with count_compiles() as compiles:
        forward(other, other_x, context)
    assert compiles.count == 0

    plain = f.forward_and_log_det(x, context)
    batched = forward_of_rows(f, jnp.stack([x, x]), context)
    for a, b, c in zip(jitted, plain, batched, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(c, jnp.stack([a, a]), rtol=1e-12, atol=1e-12)


@eqx.filter_jit
def all_methods(moving, rest, x, y, context, *, last, scores):
    """(outputs of the private methods at batches, the gradient of their sum in the trainable numbers).

    By the batch axis at the end that `_apply` takes, or by vmap over an axis at the front.
    """

    def apply(f, method, *points):
        if last:
            moved = [jnp.moveaxis(p, 0, -1) for p in points]
            outs = f._apply(method, *moved, context=None if context is None else context.T)
            return [jnp.moveaxis(o, -1, 0) for o in outs]
        return jax.vmap(lambda c, *p: getattr(f, method)(*p, c))(context, *points)

    def outputs(moving):
        f = eqx.combine(moving, rest)
        outs = [*apply(f, "_forward_and_log_det", x), *apply(f, "_inverse_and_log_det", y)]
        outs += apply(f, "_forward_with_score", x, -x) if scores else []
        return sum(jnp.sum(o) for o in outs), outs

    return jax.grad(outputs, has_aux=True)(moving)


# of those that are mapped over by vmap, one without a context and one with
BATCHED = [r for r in ROWS if (f := r.build()).takes_batches or isinstance(f, Planar | Hyper)]
QUICK = ("Permutation", "TriangularAffine", "Identity", "Planar", "Coupling-affine", "Autoregressive-affine")


@pytest.mark.parametrize(
    "row", [r if str(r) in QUICK else pytest.param(r, marks=pytest.mark.slow) for r in BATCHED], ids=str
)
def test_a_batch_axis_at_the_end_is_as_vmap(row):
    f = noised(row.build())
    x = jnp.stack([point(f.in_shape, seed) for seed in range(3)])
    one = context_of(f, 0)
    y = jnp.stack([f.forward(each, one) for each in x])
    scores = f.in_shape == f.out_shape or not row.constrained
    moving, rest = partition_trainable(f)
    contexts = None if one is None else jnp.stack([context_of(f, seed) for seed in range(3)])
    pairs = [(contexts, contexts)] + ([] if one is None else [(one, jnp.stack([one] * 3))])
    for mine, each in pairs:  # a context a point; one for all of them
        got = all_methods(moving, rest, x, y, mine, last=True, scores=scores)
        plain = all_methods(moving, rest, x, y, each, last=False, scores=scores)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@eqx.filter_jit
def values_and_gradients(moving, rest, points, context, *, backwards):
    def run(moving_and_point):
        f = eqx.combine(moving_and_point[0], rest)
        method = f.inverse_and_log_det if backwards else f.forward_and_log_det
        return method(moving_and_point[1], context)

    def one(p):
        value, pull = jax.vjp(run, (moving, p))
        ones = jax.tree.map(jnp.ones_like, value)
        return value, pull(ones)

    return jax.vmap(one)(points)


def extreme_points(shape, sizes=SIZES):
    """Every coordinate of each size and sign, then one coordinate alone."""
    d = math.prod(shape)
    corners = [sign * size * np.ones(d) for size in sizes for sign in (1, -1)]
    axes = [sign * size * np.eye(d)[i] for size in sizes for sign in (1, -1) for i in (0, d - 1)]
    return jnp.asarray(np.stack(corners + axes).reshape(-1, *shape), jnp.float32)


@costly_rows
@pytest.mark.parametrize("backwards", [False, True], ids=["forward", "inverse"])
def test_values_and_gradients_are_finite_in_single_precision(row, backwards):
    with precision("float32"):
        f = noised(row.build())
        if backwards and row.constrained:
            # points of the set that are as near its edge as forward brings them
            points = jax.vmap(f.forward)(extreme_points(f.in_shape, SIZES if row.edge else (0.0, 1e-30, 1.0)))
        else:
            points = extreme_points(f.out_shape if backwards else f.in_shape)
        out = values_and_gradients(*partition_trainable(f), points, context_of(f, 0), backwards=backwards)
        for path, leaf in jax.tree_util.tree_leaves_with_path(out):
            bad = ~np.isfinite(leaf).reshape(len(points), -1).all(axis=1)
            assert leaf.dtype == jnp.float32
            assert not bad.any(), f"{jax.tree_util.keystr(path)} at {np.asarray(points)[bad][:3]}"


@rows
def test_files_keep_every_bit(row, tmp_path):
    f = noised(row.build())
    again = read_file(write_file(tmp_path / "f.thalweg", "flow", f), "flow")
    assert jax.tree.structure(again) == jax.tree.structure(f)
    assert bool(eqx.tree_equal(again, f, typematch=True))


@rows
def test_messages_at_the_door(row):
    f = row.build()
    x, y, context = point((*f.in_shape, 9), 0), point((7, *f.out_shape), 0), context_of(f, 0)
    with pytest.raises(ValueError, match=r"`x` must have shape .*, got .*; batches go through jax.vmap"):
        f.forward_and_log_det(x, context)
    with pytest.raises(ValueError, match=r"`y` must have shape .*, got "):
        f.inverse_and_log_det(y, context)
    if context is None:
        with pytest.raises(ValueError, match=r"`context` must be None for .*, got an array"):
            f.forward_and_log_det(point(f.in_shape, 0), jnp.zeros(3))
    else:
        with pytest.raises(ValueError, match=r"`context` must be an array of shape \(3,\), got None"):
            f.forward_and_log_det(point(f.in_shape, 0))
        with pytest.raises(ValueError, match=r"`context` must have shape \(3,\), got \(4,\)"):
            f.inverse_and_log_det(point(f.out_shape, 0), jnp.zeros(4))


@rows
def test_a_skeleton_at_zero_is_the_module_and_starts_where_it_says(row):
    f = row.build()
    skeleton = Skeleton(f)
    assert skeleton.size == sum(leaf.size for leaf in jax.tree.leaves(partition_trainable(f)[0]))
    assert bool(eqx.tree_equal(skeleton(jnp.zeros(skeleton.size)), f, typematch=True))
    if row.identity:
        x = point(f.in_shape, 0)
        y, log_det = forward(f, x, context_of(f, 0))
        np.testing.assert_allclose(y, x, atol=1e-12)
        np.testing.assert_allclose(log_det, 0, atol=1e-12)


@rows
def test_the_inverted_map(row):
    f = noised(row.build())
    turned = f.inverted
    assert (turned.in_shape, turned.out_shape) == (f.out_shape, f.in_shape)
    assert (turned.forward_cost, turned.inverse_cost) == (f.inverse_cost, f.forward_cost)
    assert turned.inverted.in_shape == f.in_shape
    assert {f.forward_cost, f.inverse_cost} <= {"direct", "sequential", "root"}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    transformer = TRANSFORMERS[name]()
    rng = np.random.default_rng(0)
    x = jnp.asarray(3 * rng.standard_normal(200))
    zero = jnp.zeros((transformer.n_params, 200))
    forward, inverse = jax.jit(transformer.forward_and_log_slope), jax.jit(transformer.inverse_and_log_slope)
    y, log_slope = forward(x, zero)
    np.testing.assert_allclose(y, x, atol=1e-12)
    np.testing.assert_allclose(log_slope, 0, atol=1e-12)

    params = jnp.asarray(2 * rng.standard_normal((transformer.n_params, 200)))
    y, log_slope = forward(x, params)
    slope = jax.jit(jax.grad(lambda x: transformer.forward_and_log_slope(x, params)[0].sum()))(x)
    np.testing.assert_allclose(log_slope, np.log(slope), atol=1e-9)
    back, back_log_slope = inverse(y, params)
    np.testing.assert_allclose(back, x, atol=1e-8)
    np.testing.assert_allclose(back_log_slope, -log_slope, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    network = NETWORKS[name]()
    extra = () if name == "MLP" else (None,)
    assert not np.any(network(point((4,), 0), *extra))
    with precision("float32"):
        shaken = noised(NETWORKS[name]())
        for size in SIZES:
            x = jnp.full(4, size)
            value, pull = eqx.filter_vjp(lambda n, x: n(x, *extra), shaken, x)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, pull(jnp.ones_like(value)))))
