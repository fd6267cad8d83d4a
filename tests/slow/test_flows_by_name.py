"""The flows by name, but for one among the fast tests."""

import pytest

from flows_by_name import SLOW, check_improves_on_the_gaussian


@pytest.mark.slow
@pytest.mark.parametrize("flow", SLOW)
def test_they_improve_on_the_gaussian(flow):
    check_improves_on_the_gaussian(flow)
