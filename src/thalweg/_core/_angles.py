"""Angles, for NumPy and JAX alike."""

import math
from typing import Any


def wrap_angle(angle: Any) -> Any:
    """The same angles in [-pi, pi]."""
    return angle - 2 * math.pi * (angle / (2 * math.pi)).round()
