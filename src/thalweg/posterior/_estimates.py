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
class ModeShare:
    """How much of the mass a mode holds.

    Attributes:
        share: of 1, with its standard error.
        near: the parameters in the middle of it, in words.
    """

    share: Estimate
    near: str

    def __str__(self) -> str:
        """Share and place."""
        return f"{self.share.value:.1%} ± {self.share.standard_error:.1%} near {self.near}"


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
