"""One posterior in NumPyro and PyMC: posteriordb's log density up to a constant, the function form's gradient."""

import jax
import numpy as np
import pytest

from four_forms import NAMES, SCHOOLS, check_form


@pytest.fixture(autouse=True)
def _as_users_write():
    """Users' log densities promote ranks and types; the package itself is held to be strict elsewhere."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("form", ["numpyro", "pymc"])
@pytest.mark.parametrize("name", NAMES)
def test_three_posteriors(name, form):
    pytest.importorskip(form)
    offset = check_form(name, form)
    if name == SCHOOLS:
        assert offset == pytest.approx(np.log(2), abs=1e-6)  # of tau's half-Cauchy
