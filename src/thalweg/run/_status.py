"""How a run ended, in words."""

import enum


class Status(enum.Enum):
    """Why a run stopped; each member's value is a sentence that ends in the remedy, where one is needed."""

    CONVERGED = "the objective no longer improved beyond its noise"
    ALL_STEPS = "all the steps asked for were taken"
    BUDGET = "the budget was used up before the objective settled; give more of it"
    DIVERGED = (
        "the objective was not finite, or ran off, again and again, even with smaller steps; check the log density for "
        "NaN, overflow and rounding near the draws (float64 has less of them)"
    )

    @property
    def ok(self) -> bool:
        """Whether the result can be used as it is."""
        return self is not Status.DIVERGED

    def __str__(self) -> str:
        """The sentence."""
        return self.value


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run between two chunks; the checkpoint, if one was asked for, has been written."""
