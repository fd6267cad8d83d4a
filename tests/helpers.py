"""What several tests use: noise on parameters, counting of compiles and of equations, finite differences."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from thalweg._core import partition_trainable

_COMPILE = "/jax/core/compile/backend_compile_duration"


@dataclass
class Compiles:
    """How many programs the compiler has built inside `count_compiles`."""

    count: int = 0


_watching: list[Compiles] = []


def _on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event == _COMPILE:
        for watcher in _watching:
            watcher.count += 1


jax.monitoring.register_event_duration_secs_listener(_on_event)


@contextlib.contextmanager
def count_compiles() -> Iterator[Compiles]:
    """`with count_compiles() as compiles: ...`, then `compiles.count`."""
    watcher = Compiles()
    _watching.append(watcher)
    try:
        yield watcher
    finally:
        _watching.remove(watcher)


def noised(module: Any, sigma: float = 0.2, seed: int = 0) -> Any:
    """`module` with N(0, sigma^2) added to each trainable number: a start at the identity hides mistakes."""
    rng = np.random.default_rng(seed)
    moving, rest = partition_trainable(module)

    def shake(leaf: Any) -> Any:
        return jnp.asarray(np.asarray(leaf) + (sigma * rng.standard_normal(leaf.shape)).astype(leaf.dtype))

    return eqx.combine(jax.tree.map(shake, moving), rest)


def count_equations(function: Callable[..., Any], *args: Any) -> int:
    """The number of equations in the function's jaxpr, those of inner ones included: what compile time follows."""

    def count(jaxpr: Any) -> int:
        inner = [v for e in jaxpr.eqns for v in jax.tree.leaves(list(e.params.values()), is_leaf=_is_jaxpr)]
        return len(jaxpr.eqns) + sum(count(getattr(v, "jaxpr", v)) for v in inner if _is_jaxpr(v))

    return count(jax.make_jaxpr(function)(*args).jaxpr)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def scipy_root(function: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """The root of a scalar function between `low` and `high`, by SciPy's Brent method."""
    return brentq(function, low, high, xtol=1e-14)


def others_slow(rows):
    """Rows as parameters of a test: the first of each export, and the others marked slow."""
    first = {row.export: row for row in reversed(rows)}
    return [row if first[row.export] is row else pytest.param(row, marks=pytest.mark.slow) for row in rows]
