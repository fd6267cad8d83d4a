"""Pytrees: what trains, skeletons, stacks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import count_compiles
from thalweg._core import Fixed, Skeleton, partition_trainable, stack_modules, trainable


class Layer(eqx.Module):
    weight: jax.Array
    count: jax.Array
    held: Fixed
    name: str = eqx.field(static=True, default="layer")


def make(scale=1.0, name="layer", d=3):
    return Layer(scale * jnp.arange(float(d)), jnp.arange(2), Fixed(jnp.asarray([7.0])), name)


def test_only_free_floating_point_arrays_train():
    mask = trainable(make())
    assert mask.weight is True and mask.count is False and mask.held is False
    moving, rest = partition_trainable(make())
    assert [leaf.shape for leaf in jax.tree.leaves(moving)] == [(3,)]
    assert bool(eqx.tree_equal(eqx.combine(moving, rest), make()))


def test_a_gradient_does_not_reach_what_is_fixed():
    moving, rest = partition_trainable(make())
    gradient = jax.grad(lambda m: (lambda f: (f.weight * f.held.value).sum())(eqx.combine(m, rest)))(moving)
    np.testing.assert_array_equal(gradient.weight, [7, 7, 7])
    assert len(jax.tree.leaves(gradient)) == 1


def test_a_skeleton_adds_its_vector():
    skeleton = Skeleton({"a": make(), "b": (jnp.ones((2, 2)), 5)})
    assert skeleton.size == 7
    vector = jnp.arange(7.0)
    module = skeleton(vector)
    np.testing.assert_array_equal(module["a"].weight, [0, 2, 4])
    np.testing.assert_array_equal(module["b"][0], [[4, 5], [6, 7]])
    assert module["b"][1] == 5
    with count_compiles() as compiles:
        on_host = skeleton.on_host(np.arange(7.0))
    assert compiles.count == 0
    assert bool(eqx.tree_equal(on_host, module, typematch=True))
    gradient = jax.grad(lambda v: (skeleton(v)["b"][0] ** 2).sum())(vector)
    np.testing.assert_array_equal(gradient, [0, 0, 0, 8, 10, 12, 14])
    # its initial numbers do not train: the vector does
    assert jax.tree.leaves(partition_trainable(skeleton)[0]) == []
    with pytest.raises(ValueError, match=r"`vector` must have shape \(7,\), got \(8,\)"):
        skeleton(jnp.zeros(8))


def test_a_skeleton_keeps_single_precision_and_maps_over_vectors():
    skeleton = Skeleton(jnp.zeros(3, jnp.float32))
    assert skeleton(jnp.ones(3, jnp.float32)).dtype == jnp.float32
    out = jax.vmap(skeleton)(jnp.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(out, [[0, 1, 2], [3, 4, 5]])


def test_stacked_modules_have_a_leading_axis():
    stacked = stack_modules([make(1.0), make(2.0)])
    np.testing.assert_array_equal(stacked.weight, [[0, 1, 2], [0, 2, 4]])
    assert stacked.name == "layer"


@pytest.mark.parametrize("other", [make(name="other"), make(d=4), jnp.zeros(3)])
def test_unlike_modules_do_not_stack(other):
    with pytest.raises(ValueError, match=r"`layers` must all have the same structure and shapes, .*; use Chain"):
        stack_modules([make(), other])
