"""Whether two places are joined, against densities whose ways between are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.ladder._string import is_joined, lead_uphill


def _banana(p):
    x, y = p["x"]
    return norm.logpdf(x, 0, 3) + norm.logpdf(y, x**2, 0.3)


def _circle(p):
    return -0.5 * ((jnp.sqrt((p["x"] ** 2).sum() + 1e-12) - 4) / 0.3) ** 2


def _two(p):
    return jnp.logaddexp(norm.logpdf(p["x"], -4.0).sum(), norm.logpdf(p["x"], 4.0).sum())


@pytest.mark.parametrize(
    ("log_density", "ends", "joined"),
    [
        (_banana, [[-3, 9], [3, 9]], True),
        (_banana, [[-3, 9], [0, 0]], True),
        (_circle, [[4, 0], [0, 4]], True),
        (_two, [[-4, -4], [4, 4]], False),
        (_two, [[-4, -4], [-3, -4.5]], True),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_way_along_a_bend_joins_what_a_straight_one_does_not(log_density, ends, joined, scale):
    target = tw.from_function(lambda p: log_density({"x": p["x"] / scale}), {"x": tw.real(2)})
    assert is_joined(target, scale * np.array(ends, float), scale * np.eye(2), 2.0) is joined


def test_a_way_over_no_density_is_none():
    target = tw.from_function(
        lambda p: jnp.where(jnp.abs(p["x"]).sum() < 1, -jnp.inf, norm.logpdf(p["x"]).sum()), {"x": tw.real(1)}
    )
    assert not is_joined(target, np.array([[-2.0], [2.0]]), np.eye(1), 2.0)


def test_straight_ways_that_only_rise():
    target = tw.from_function(_two, {"x": tw.real(2)})
    # from the last it rises to the other mode first, and falls to where it is higher than at the start
    places = np.array([[-9.0, -8], [50, -70], [4, 4], [1, 1], [12, 12]])
    expected = [True, True, False, False, False]
    np.testing.assert_array_equal(lead_uphill(target, places, np.array([-4.0, -4]), 2.0), expected)
    bent = tw.from_function(_banana, {"x": tw.real(2)})
    np.testing.assert_array_equal(lead_uphill(bent, np.array([[3.0, 9], [0, 4]]), np.zeros(2), 2.0), [False, True])


def test_of_a_way_over_no_density_nothing_is_known():
    target = tw.from_function(
        lambda p: jnp.where(jnp.abs(p["x"]).sum() < 1, -jnp.inf, norm.logpdf(p["x"]).sum()), {"x": tw.real(1)}
    )
    np.testing.assert_array_equal(lead_uphill(target, np.array([[-2.0], [9.0]]), np.full(1, 2.0), 2.0), [False, True])
