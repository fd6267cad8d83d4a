"""How often a log density was asked for."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple


class Count(NamedTuple):
    """Evaluations.

    Attributes:
        values: of the log density alone.
        gradients: of the log density with its gradient.
    """

    values: int = 0
    gradients: int = 0

    @property
    def total(self) -> int:
        """Both."""
        return self.values + self.gradients


_NONE = Count()
_counted: ContextVar[Count] = ContextVar("counted", default=_NONE)


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Count from 0 what is evaluated inside; whoever counts outside sees it afterwards."""
    token = _counted.set(_NONE)
    try:
        yield
    finally:
        inside = _counted.get()
        _counted.reset(token)
        count(*inside)


def count(values: int = 0, gradients: int = 0) -> None:
    """Add to the count."""
    so_far = _counted.get()
    _counted.set(Count(so_far.values + values, so_far.gradients + gradients))


def counted() -> Count:
    """What has been counted so far."""
    return _counted.get()
