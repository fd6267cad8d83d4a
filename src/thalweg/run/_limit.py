"""What bounds a job: seconds, evaluations of the log density, or nothing."""

import dataclasses
import time
from typing import Any

from thalweg._core import check_positive, check_positive_int, counted


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """A budget that is the same on every machine: so many evaluations of the log density, with gradient or without.

    Attributes:
        n: how many.
    """

    n: int

    def __post_init__(self) -> None:
        """Check."""
        check_positive_int("n", self.n)


@dataclasses.dataclass(frozen=True)
class Limit:
    """A budget that is being used up.

    Attributes:
        budget: seconds, `Evaluations`, or None for no bound.
        began: the `time.monotonic()` from which seconds count.
        before: evaluations that had been made by then.
    """

    budget: float | Evaluations | None
    began: float
    before: int

    @classmethod
    def of(cls, budget: Any) -> "Limit":
        """A budget that begins now; a limit as it is.

        Raises:
            ValueError: if it is neither a positive number, nor `Evaluations`, nor None.
        """
        if isinstance(budget, Limit):
            return budget
        if not (budget is None or isinstance(budget, Evaluations)):
            check_positive("budget", budget, " of seconds, or Evaluations(n)")
        return cls(budget, time.monotonic(), counted().total)

    @property
    def used(self) -> float:
        """The share that is used up; 0 without a bound."""
        if self.budget is None:
            return 0.0
        if isinstance(self.budget, Evaluations):
            return (counted().total - self.before) / self.budget.n
        return (time.monotonic() - self.began) / self.budget

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.used >= 1
