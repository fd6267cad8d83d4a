"""When chains that disagree are not run any longer."""

import pytest

from thalweg.posterior._refine import _is_hopeless


@pytest.mark.parametrize(
    ("excesses", "doublings", "hopeless"),
    [
        ([3.0], 8, False),  # as 1 / n: 0.012
        ([5.0], 8, True),
        ([0.228, 0.194], 7, False),  # of one doubling the pace is not known
        ([0.228, 0.194, 0.141], 6, True),  # 0.033 at this pace
        ([0.228, 0.114, 0.057], 6, False),
        ([0.025, 0.0137, 0.0043], 6, False),
        ([0.02, 0.03, 0.04], 1, True),  # further apart
        ([0.0, -1e-4, 0.0], 6, False),
    ],
)
def test_by_the_pace_of_r_hat(excesses, doublings, hopeless):
    assert _is_hopeless(excesses, doublings) == hopeless
