"""Numbers that know how sure they are."""

import dataclasses
import math
from typing import Any

from thalweg._core import register


@register
@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its standard error.

    Attributes:
        value: the estimate.
        standard_error: of the value, one standard deviation.
    """

    value: float
    standard_error: float

    def widened(self, by: float) -> "Estimate":
        """The same value with another error beside its own."""
        return Estimate(self.value, math.hypot(self.standard_error, by))

    def __str__(self) -> str:
        """Value and error, to the error's second digit."""
        return f"{self.value:.3f} ± {self.standard_error:.2g}"


@register
@dataclasses.dataclass(frozen=True)
class Bound:
    """What is only known from one side or between two numbers (or arrays of numbers).

    Attributes:
        lower: the quantity is at least this, in expectation; None where unknown.
        upper: the quantity is at most this, in expectation; None where unknown.
    """

    lower: Any
    upper: Any

    def __str__(self) -> str:
        """The interval."""
        return f"between {self.lower} and {self.upper}"
