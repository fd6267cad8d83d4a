"""Log densities equal posteriordb's written definitions, at reference draws, in both precisions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posteriordb_models import MODELS, RECORDS, as_params, make


@pytest.fixture(autouse=True)
def _as_users_write():
    """Users' log densities promote ranks and types; the package itself is held to be strict elsewhere."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@eqx.filter_jit
def look(target, params):
    """(u, the log density there without its log-determinant)."""
    u = target.unconstrain(params)
    return u, target.log_density(u) - target.constrain(u)[1]


@eqx.filter_jit
def slope(target, params):
    return jax.grad(target.log_density)(target.unconstrain(params))


@pytest.mark.parametrize("name", MODELS)
def test_log_density_in_both_precisions(name):
    record = RECORDS[name]
    for dtype, tolerance in (("float64", 1e-6), ("float32", 5e-3)):
        with jax.enable_x64(dtype == "float64"):
            target = make(name)
            for row, truth in zip(record["points"], record["log_joint"], strict=True):
                u, value = look(target, as_params(name, row))
                assert u.dtype == dtype
                assert abs(float(value) - truth) < tolerance


@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_finite_at_reference_draws(name):
    target = make(name)
    for row in RECORDS[name]["points"]:
        gradient = slope(target, as_params(name, row))
        assert bool(jnp.all(jnp.isfinite(gradient)))
        assert np.shape(gradient) == (target.size,)
