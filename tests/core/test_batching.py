"""Batches: leading axes outside, the last axis inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg._core import in_pieces, over_batch


def scale(x, c):
    return {"product": x * c.sum(), "sum": x.sum()}


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_batch_axes_lead(batch):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((*batch, 2, 3)))
    c = jnp.asarray([1.0, 2.0])
    out = over_batch(scale, {"x": (x, (2, 3)), "c": (c, (2,))})
    np.testing.assert_allclose(out["product"], 3 * x)
    np.testing.assert_allclose(out["sum"], np.asarray(x).sum((-1, -2)), atol=1e-12)


def test_batches_broadcast():
    x, c = jnp.ones((4, 1, 3)), jnp.arange(10.0).reshape(5, 2)
    out = over_batch(scale, {"x": (x, (3,)), "c": (c, (2,))})
    assert out["product"].shape == (4, 5, 3)
    np.testing.assert_allclose(out["sum"][0], 3)
    np.testing.assert_allclose(out["product"][2, :, 0], np.asarray(c).sum(1))


def test_what_is_no_batch_passes_through():
    out = over_batch(lambda x, c, d: (x, c is None, d.shape == (7,)), {
        "x": (jnp.ones((4, 3)), (3,)), "c": (None, (2,)), "d": (jnp.ones(7), None),
    })  # fmt: skip
    assert out[0].shape == (4, 3)


def test_keys_are_points_too():
    keys = jax.random.split(jax.random.key(0), (2, 3))
    out = over_batch(lambda key: jax.random.normal(key, (4,)), {"key": (keys, ())})
    assert out.shape == (2, 3, 4)
    np.testing.assert_array_equal(out[1, 2], jax.random.normal(keys[1, 2], (4,)))


def test_an_empty_batch():
    out = over_batch(lambda x: x.sum(), {"x": (jnp.zeros((0, 3)), (3,))})
    assert out.shape == (0,)


def test_the_message_names_the_argument():
    with pytest.raises(ValueError, match=r"`x` must have shape \(\.\.\., 3\), got \(4,\)"):
        over_batch(scale, {"x": (jnp.ones(4), (3,)), "c": (jnp.ones(2), (2,))})


@pytest.mark.parametrize("n", [1, 4, 5, 11])
def test_pieces_of_one_size_give_all_rows(n):
    rows = {"x": np.arange(3.0 * n).reshape(n, 3), "i": np.arange(float(n))}
    seen = []

    def function(piece):
        seen.append(piece["x"].shape)
        return {"sum": piece["x"].sum(1) + piece["i"], "twice": 2 * piece["x"]}

    out = in_pieces(function, rows, 4)
    np.testing.assert_array_equal(out["sum"], rows["x"].sum(1) + rows["i"])
    np.testing.assert_array_equal(out["twice"], 2 * rows["x"])
    assert seen == [(4, 3)] * -(-n // 4)
