"""What structure promises: who depends on whom, layers under one scan, a flow per datum, nothing compiled."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bijections_rows import ROWS, SMALL
from helpers import count_compiles, count_equations, noised
from thalweg.bijections import (
    LU,
    AbstractBijection,
    AffineTransformer,
    Autoregressive,
    Chain,
    Coupling,
    FixedAffine,
    Hyper,
    MaskedMLP,
    Permutation,
    Planar,
    Radial,
    Scan,
    Squeeze,
    Vmap,
    random_permutation,
    reverse,
)
from thalweg.distributions import StandardNormal, Transformed


def pattern(jacobian):
    return np.asarray(jacobian) != 0


@pytest.mark.parametrize("context_size", [None, 2])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_autoregressive_dependencies(context_size, depth):
    d = 5
    f = noised(Autoregressive(d, AffineTransformer(), context_size=context_size, width=16, depth=depth), sigma=1)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(d))
    context = None if context_size is None else jnp.asarray([0.3, -1.0])
    jacobian = jax.jit(jax.jacfwd(f.forward))(x, context)
    np.testing.assert_array_equal(pattern(jacobian), np.tri(d, dtype=bool))
    if context is not None:
        by_context = jax.jit(jax.jacfwd(lambda c: f.forward(x, c)))(context)
        assert pattern(by_context).all()


def test_masked_network_dependencies():
    network = noised(MaskedMLP(4, 2, **SMALL), sigma=1)
    jacobian = jax.jit(jax.jacfwd(lambda x: network(x, None)))(jnp.arange(4.0))
    for row in jacobian:
        np.testing.assert_array_equal(pattern(row), np.tri(4, k=-1, dtype=bool))


@pytest.mark.parametrize("swap", [False, True])
def test_coupling_dependencies(swap):
    f = noised(Coupling(5, AffineTransformer(), swap=swap, **SMALL), sigma=1)
    jacobian = jax.jit(jax.jacfwd(f.forward))(jnp.asarray([0.5, -1, 2, 0.1, -0.3]))
    kept = np.arange(5) >= 2 if swap else np.arange(5) < 2
    expected = np.eye(5, dtype=bool) | (~kept[:, None] & kept[None, :])
    np.testing.assert_array_equal(pattern(jacobian), expected)


def make_layers(n):
    return [
        noised(Chain([Coupling(4, AffineTransformer(), seed=s, **SMALL), random_permutation(4, s), LU(4)]), seed=s)
        for s in range(n)
    ]


def test_a_scan_is_a_chain():
    layers = make_layers(4)
    scan, chain = Scan(layers), Chain(layers)
    x = jnp.asarray([0.5, -1, 2, 0.1])
    for method in ("forward_and_log_det", "inverse_and_log_det"):
        a, b = (eqx.filter_jit(getattr(f, method))(x) for f in (scan, chain))
        np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
        np.testing.assert_allclose(a[1], b[1], rtol=1e-12)


def test_what_is_compiled_does_not_grow_with_the_number_of_layers():
    def gradient(f, x):
        return eqx.filter_grad(lambda f: f.forward_and_log_det(x)[1] + f.inverse(x).sum())(f)

    def equations(flow):
        moving, rest = eqx.partition(flow, eqx.is_inexact_array)
        return count_equations(lambda m, x: gradient(eqx.combine(m, rest), x), moving, jnp.ones(4))

    few, many = equations(Scan(make_layers(2))), equations(Scan(make_layers(7)))
    assert few == many
    # and the count can grow: without a scan it does
    assert equations(Chain(make_layers(7))) > 2 * equations(Chain(make_layers(2)))


def test_layers_of_a_scan_must_be_alike():
    with pytest.raises(ValueError, match="`layers` must all have the same structure and shapes"):
        Scan([Planar(4), Radial(4)])
    with pytest.raises(ValueError, match="`layers` must all have the same structure and shapes"):
        Scan([Coupling(4, AffineTransformer(), **SMALL), Coupling(4, AffineTransformer(), swap=True, **SMALL)])
    with pytest.raises(ValueError, match="`layers` must have at least one element"):
        Scan([])
    with pytest.raises(ValueError, match="`layers` must keep their point's shape"):
        Scan([Squeeze((2, 2, 1))])


def test_parts_of_a_chain_must_fit():
    with pytest.raises(ValueError, match=r"`bijections` must fit one another, got Planar .* before LU"):
        Chain([Planar(4), LU(3)])
    with pytest.raises(ValueError, match="`bijections` must have at least one element"):
        Chain([])
    parts = [Coupling(4, AffineTransformer(), context_size=k, **SMALL) for k in (2, 3)]
    with pytest.raises(ValueError, match="`bijections` must take the same context shape"):
        Chain(parts)


def test_a_flow_for_each_datum():
    hyper = noised(Hyper(Chain([Planar(3), Radial(3), Coupling(3, AffineTransformer(), **SMALL)]), 2, **SMALL))
    rng = np.random.default_rng(0)
    x, contexts = jnp.asarray(rng.standard_normal((5, 3))), jnp.asarray(rng.standard_normal((5, 2)))
    y, log_det = jax.jit(jax.vmap(hyper.forward_and_log_det))(x, contexts)
    assert np.ptp(log_det) > 0.01
    for i in range(5):
        alone = eqx.filter_jit(hyper.driven(contexts[i]).forward_and_log_det)(x[i])
        np.testing.assert_allclose(y[i], alone[0], rtol=1e-10)
        np.testing.assert_allclose(log_det[i], alone[1], rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="`bijection` must take no context of its own"):
        Hyper(hyper, 2)


def test_vmap_is_the_bijection_on_each_entry():
    f = noised(Planar(3))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)))
    y, log_det = Vmap(f, 4).forward_and_log_det(x)
    np.testing.assert_allclose(y, jnp.stack([f.forward(p) for p in x]), rtol=1e-12)
    np.testing.assert_allclose(log_det, sum(f.forward_and_log_det(p)[1] for p in x), rtol=1e-12)


def test_squeeze_gathers_blocks():
    image = jnp.arange(16.0).reshape(4, 4, 1)
    y = Squeeze((4, 4, 1)).forward(image)
    np.testing.assert_array_equal(y[0, 0], [0, 1, 4, 5])
    np.testing.assert_array_equal(y[1, 1], [10, 11, 14, 15])


def test_permutations():
    x = jnp.arange(5.0)
    np.testing.assert_array_equal(reverse(5).forward(x), x[::-1])
    orders = {tuple(np.asarray(random_permutation(5, s).permutation)) for s in range(20)}
    assert len(orders) > 10
    with pytest.raises(ValueError, match="`permutation` must hold each of 0"):
        Permutation([0, 0, 2])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"`matrix` must be \(2, 2\)"):
        FixedAffine(np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="`matrix` must have an inverse"):
        FixedAffine(np.zeros(2), np.ones((2, 2)))
    with pytest.raises(ValueError, match="`first` must be from 0 to size = 3"):
        Coupling(3, AffineTransformer(), first=4)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_building_compiles_nothing(row):
    jax.clear_caches()
    with count_compiles() as compiles:
        row.build()
    assert compiles.count == 0


def test_a_compile_is_counted():
    with count_compiles() as compiles:
        jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(17))
    assert compiles.count > 0


class Own(AbstractBijection):
    """A user's own, which fails in the way that it is told to."""

    fault: str = eqx.field(static=True)
    in_shape: tuple[int, ...] = eqx.field(static=True, default=(3,))
    out_shape: tuple[int, ...] = eqx.field(static=True, default=(3,))
    context_shape: None = eqx.field(static=True, default=None)
    forward_cost: str = eqx.field(static=True, default="direct")
    inverse_cost: str = eqx.field(static=True, default="direct")

    def _forward_and_log_det(self, x, context):
        match self.fault:
            case "alone":
                return 2 * x
            case "vector":
                return 2 * x, jnp.full(3, jnp.log(2.0))
            case "raises":
                return x + jnp.ones(2), jnp.zeros(())
        return 2 * x, 3 * jnp.log(2.0)

    def _inverse_and_log_det(self, y, context):
        if self.fault == "one way":
            raise NotImplementedError
        return (y[:2] if self.fault == "short" else y) / 2, -3 * jnp.log(2.0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("alone", r"`Own._forward_and_log_det` must give a point of shape \(3,\) and a log-det.*, got one array"),
        ("vector", r"`Own._forward_and_log_det` must give .*, got \(\(3,\), \(3,\)\)"),
        (
            "raises",
            r"`Own._forward_and_log_det` must take a point of shape \(3,\), got TypeError: add got incompatible",
        ),
        ("one way", r"`Own._inverse_and_log_det` must take a point of shape \(3,\), got NotImplementedError"),
        ("short", r"`Own._inverse_and_log_det` must give .*, got \(\(2,\), \(\)\)"),
    ],
)
def test_a_users_own_that_breaks_the_contract_is_told_at_once(fault, message):
    with pytest.raises(ValueError, match=message):
        Own(fault)


def test_a_users_own_that_keeps_it():
    assert float(Own("").forward_and_log_det(jnp.ones(3))[1]) == pytest.approx(3 * np.log(2))


class OwnWithANetwork(AbstractBijection):
    """A coupling of the second coordinate, by Equinox's own network, which holds its activation as a leaf."""

    network: eqx.nn.MLP
    in_shape: tuple[int, ...] = eqx.field(static=True, default=(2,))
    out_shape: tuple[int, ...] = eqx.field(static=True, default=(2,))
    context_shape: None = eqx.field(static=True, default=None)
    forward_cost: str = eqx.field(static=True, default="direct")
    inverse_cost: str = eqx.field(static=True, default="direct")

    def _forward_and_log_det(self, x, context):
        shift, log_scale = self.network(x[:1])
        return jnp.stack([x[0], x[1] * jnp.exp(log_scale) + shift]), log_scale

    def _inverse_and_log_det(self, y, context):
        shift, log_scale = self.network(y[:1])
        return jnp.stack([y[0], (y[1] - shift) * jnp.exp(-log_scale)]), -log_scale


def test_a_network_in_a_users_own_is_frozen_without_its_activation():
    """The path gradient is that of log q with q's own numbers held: by the pushed score as by the inverse."""
    flow = Transformed(StandardNormal((2,)), OwnWithANetwork(eqx.nn.MLP(1, 2, 8, 1, key=jax.random.key(0))))

    @eqx.filter_grad
    def pushed(flow):
        return flow.sample_and_path_log_q(jax.random.key(1))[1]

    @eqx.filter_grad
    def inverted(flow, fixed):
        return fixed.log_prob(flow.sample(jax.random.key(1)))

    for a, b in zip(jax.tree.leaves(pushed(flow)), jax.tree.leaves(inverted(flow, flow)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
