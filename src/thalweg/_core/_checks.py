"""The checks at the door, in one wording: `` `argument` must ..., got ...; try ... ``."""

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np


def requirement(argument: str, must: str, got: object, remedy: str = "") -> str:
    """The body of every message: one sentence that names the argument, what it got and what to do."""
    return f"`{argument}` must {must}, got {got}" + (f"; {remedy}" if remedy else "")


def check_shape(argument: str, array: Any, shape: tuple[int, ...], remedy: str = "") -> None:
    """Raise ValueError unless `array` has exactly `shape`; costs nothing at run time."""
    if np.shape(array) != tuple(shape):
        raise ValueError(requirement(argument, f"have shape {tuple(shape)}", np.shape(array), remedy))


def check_trailing_shape(argument: str, array: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Raise ValueError unless the last axes of `array` are `shape`; return the leading (batch) axes."""
    got, n = np.shape(array), len(shape)
    if len(got) < n or (n and got[len(got) - n :] != tuple(shape)):
        raise ValueError(requirement(argument, f"have shape (..., {', '.join(map(str, shape))})", got))
    return got[: len(got) - n]


def check_positive_int(argument: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int, or raise ValueError where it is not a whole number of at least `least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(requirement(argument, f"be a whole number of at least {least}", repr(value)))
    return int(value)


def check_sizes(argument: str, shape: Any) -> tuple[int, ...]:
    """Return `shape` as a tuple of ints, or raise ValueError where it is no tuple of sizes of at least 1."""
    if not isinstance(shape, tuple | list):
        raise ValueError(requirement(argument, "be a tuple of sizes", repr(shape), "write (3,) for three numbers"))
    return tuple(check_positive_int(argument, size) for size in shape)


def check_positive(argument: str, value: Any, unit: str = "") -> float:
    """Return `value` as a float, or raise ValueError where it is not a positive number (of a `unit`, in words)."""
    if isinstance(value, bool) or not (isinstance(value, int | float | np.number) and value > 0):
        raise ValueError(requirement(argument, f"be a positive number{unit}", repr(value)))
    return float(value)


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`, or raise ValueError that suggests the nearest."""
    known = list(choices)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value).lower(), known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]!r}?" if near else ""
    raise ValueError(requirement(argument, f"be one of {', '.join(known)}", repr(value), remedy))
