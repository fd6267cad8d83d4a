"""Steps of Adam: against Optax's own, spikes clipped, bad ones not taken."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from thalweg.fit._optimiser import init_optimiser, optimiser_step

GOOD = jnp.array(True)


def test_steps_are_adams_where_nothing_spikes():
    rng = np.random.default_rng(0)
    params = plain = jnp.asarray(rng.standard_normal(5))
    state, adam = init_optimiser(params), optax.adam(0.1)
    plain_state = adam.init(plain)
    for _ in range(20):
        gradient = jnp.asarray(rng.standard_normal(5))
        params, state, taken = optimiser_step(gradient, state, params, 0.1, GOOD)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes ints and floats
            updates, plain_state = adam.update(gradient, plain_state, plain)
        plain = optax.apply_updates(plain, updates)
        assert taken
    np.testing.assert_allclose(params, plain, rtol=1e-12)


def test_a_spike_counts_as_ten_usual_gradients():
    params = jnp.zeros(4)
    state = init_optimiser(params)
    for _ in range(50):
        params, state, _ = optimiser_step(jnp.full(4, 0.5), state, params, 0.1, GOOD)
    before = state
    direction = jnp.asarray([3.0, -4.0, 0.0, 0.0])
    params, state, taken = optimiser_step(1e6 * direction, state, params, 0.1, GOOD)
    assert taken
    np.testing.assert_allclose(state.adam.mu - 0.9 * before.adam.mu, 0.1 * 10 * direction / 5, atol=1e-6)
    np.testing.assert_allclose(state.usual, 0.95 + 0.05 * 10, rtol=1e-6)


def test_what_is_not_finite_changes_nothing():
    params = jnp.ones(2)
    _, state, _ = optimiser_step(jnp.ones(2), init_optimiser(params), params, 0.1, GOOD)
    for gradient, good in ((jnp.array([jnp.nan, 1.0]), True), (jnp.array([jnp.inf, 1.0]), True), (jnp.ones(2), False)):
        new, new_state, taken = optimiser_step(gradient, state, params, 0.1, jnp.array(good))
        assert not taken
        np.testing.assert_array_equal(new, params)
        np.testing.assert_array_equal(new_state.adam.mu, state.adam.mu)
        np.testing.assert_array_equal(new_state.usual, state.usual)


def test_a_gradient_of_zero_is_a_step():
    params = jnp.ones(2)
    new, state, taken = optimiser_step(jnp.zeros(2), init_optimiser(params), params, 0.1, GOOD)
    assert taken and np.isfinite(state.usual)
    np.testing.assert_array_equal(new, params)
