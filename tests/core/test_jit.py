"""Jitted with options: the same numbers, and an XLA that lacks an option is no error."""

import jax.numpy as jnp
import numpy as np
import pytest

from thalweg._core import _jit, wide_jit


@pytest.mark.parametrize("options", [_jit.OPTIONS, {"xla_no_such_option": 1}], ids=["known", "unknown"])
def test_options_do_not_change_what_is_computed(monkeypatch, options):
    monkeypatch.setattr(_jit, "OPTIONS", options)
    x = np.linspace(-3, 3, 1001)
    function = wide_jit(lambda x, name: jnp.exp(x) if name == "exp" else jnp.tanh(x))
    np.testing.assert_allclose(function(jnp.asarray(x), "exp"), np.exp(x), rtol=1e-12)
    np.testing.assert_allclose(function(jnp.asarray(x), "tanh"), np.tanh(x), rtol=1e-12)


def test_what_the_function_raises_comes_through():
    def fail(x):
        raise RuntimeError("No such compile option, says the user")

    with pytest.raises(RuntimeError, match="says the user"):
        wide_jit(fail)(jnp.zeros(3))
