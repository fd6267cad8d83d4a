"""Jitted with options: the same numbers, and an XLA that lacks an option is no error; and for rows."""

import threading
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import count_compiles
from thalweg import _core as core
from thalweg._core import _jit, quick_jit, quick_rows_jit, rows_jit, wide_jit


@pytest.mark.parametrize("unknown", [{}, {"xla_no_such_option": 1}], ids=["known", "unknown"])
@pytest.mark.parametrize(("jit", "name"), [(wide_jit, "OPTIONS"), (quick_jit, "QUICKLY")])
def test_options_do_not_change_what_is_computed(monkeypatch, jit, name, unknown):
    monkeypatch.setattr(_jit, name, getattr(_jit, name) | unknown)
    x = np.linspace(-3, 3, 1001)
    function = jit(lambda x, name: jnp.exp(x) if name == "exp" else jnp.tanh(x))
    np.testing.assert_allclose(function(jnp.asarray(x), "exp"), np.exp(x), rtol=1e-12)
    np.testing.assert_allclose(function(jnp.asarray(x), "tanh"), np.tanh(x), rtol=1e-12)


def test_what_the_function_raises_comes_through():
    def fail(x):
        raise RuntimeError("No such compile option, says the user")

    with pytest.raises(RuntimeError, match="says the user"):
        wide_jit(fail)(jnp.zeros(3))


class Scaled(eqx.Module):
    factor: jax.Array
    function: Callable = eqx.field(static=True)
    power: int

    def __call__(self, x):
        return self.factor * self.function(x) ** self.power


def test_rows_of_numpy_and_what_is_bound():
    apply = rows_jit(lambda scaled, shift, x: scaled(x) + shift)
    x = np.linspace(-3, 3, 7)
    factors, shift = jnp.arange(1.0, 4.0), jnp.asarray(0.5)
    each = [Scaled(factor, jnp.exp, 2) for factor in factors]
    with count_compiles() as compiles:
        found = [apply(scaled, shift)(x) for scaled in each]
    np.testing.assert_allclose(found, np.arange(1, 4)[:, None] * np.exp(x) ** 2 + 0.5, rtol=1e-12)
    assert compiles.count == 1
    for function, power, truth in ((jnp.exp, 3, np.exp(x) ** 3), (jnp.tanh, 2, np.tanh(x) ** 2)):
        found = apply(Scaled(jnp.asarray(1.0), function, power), jnp.asarray(0.0))(x)
        np.testing.assert_allclose(found, truth, rtol=1e-12)
    # None in the place of an array is no array
    assert rows_jit(lambda one, other, x: x + (one if other is None else other))(jnp.ones(()), None)(x)[0] == -2
    assert rows_jit(lambda one, other, x: x + (other if one is None else one))(None, jnp.ones(()))(x)[0] == -2


@pytest.mark.parametrize(("jit", "name"), [(rows_jit, "OF_ROWS"), (quick_rows_jit, "QUICKLY")])
def test_an_option_that_is_not_known_to_rows(monkeypatch, jit, name):
    monkeypatch.setattr(_jit, name, {"xla_no_such_option": 1})
    np.testing.assert_allclose(jit(lambda c, x: c * x)(jnp.asarray(2.0))(np.ones(3)), 2.0)


@pytest.mark.parametrize("jit", [wide_jit, quick_jit, lambda function: rows_jit(function)()])
def test_who_asks_for_what_another_thread_compiles_waits_for_it(jit):
    traced = []

    def slow(x):
        traced.append(threading.current_thread())
        time.sleep(0.2)
        return 2 * x

    double = jit(slow)
    core.ahead(lambda: double(np.ones(3)))
    while not traced:
        time.sleep(0.001)
    np.testing.assert_array_equal(double(np.ones(3)), 2.0)
    assert traced != [threading.current_thread()]
    assert len(traced) == 1


def test_what_is_not_for_cpus_alone_is_left_to_the_defaults_elsewhere(monkeypatch):
    asked = {}

    def jit(**settings):
        asked.update(settings["compiler_options"])
        return lambda x: x

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    _jit._where_known(jit, lambda x: x, _jit.QUICKLY)(1)
    assert asked == {k: v for k, v in _jit.QUICKLY.items() if k.startswith("xla_cpu")}
    assert asked != _jit.QUICKLY
