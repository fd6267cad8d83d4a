"""Mass nearer to a bound than the precision can tell is told of."""

import numpy as np
import pytest
from jax.scipy.stats import beta

import thalweg as tw
from thalweg.targets import circular, greater_than, interval, positive, real


@pytest.mark.parametrize(("shape", "told"), [(0.1, True), (0.5, False)])
def test_a_density_that_piles_up_at_one(shape, told):
    target = tw.from_function(lambda p: beta.logpdf(p["x"], shape, shape), {"x": tw.interval(0, 1)})
    posterior = tw.infer(target, "gaussian", dtype="float32", progress=False)
    assert ("within one rounding of a bound" in str(posterior.verdict)) == told


def test_what_is_near_an_end():
    values = np.array([[0.5, 1e-30], [1 - 6e-8, 0.5], [1.0 - 1e-5, 0.2]], np.float32)
    np.testing.assert_array_equal(interval(0, 1, 2).at_end(values), [False, True, False])
    np.testing.assert_array_equal(greater_than(5.0).at_end(np.array([5.0000005, 5.1])), [False, False])
    np.testing.assert_array_equal(greater_than(5.0).at_end(np.array([5.0000005, 5.1], np.float32)), [True, False])
    assert circular().at_end(np.array([np.pi], np.float32))[0]
    assert interval(0, 1).has_ends
    assert not positive().has_ends
    assert not real().has_ends
