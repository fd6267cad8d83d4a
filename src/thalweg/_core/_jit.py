"""Jitted as `equinox.filter_jit` does it, with what XLA must be told to use; and cheap to call again and again."""

import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

import equinox as eqx
import jax

_Out = TypeVar("_Out")

OPTIONS = {"xla_cpu_prefer_vector_width": 512}
"""XLA's code for CPUs keeps to half of an AVX-512 register unless told: 3 to 6 % of a flow's step. Other devices pass
over it."""

OF_ROWS = {**OPTIONS, "xla_backend_optimization_level": 2}
"""For a density by itself: at level 3 XLA compiles a regression's gradient in 0.8 s, not 0.3, and it runs no faster. A
spline flow's step does, by a quarter."""

QUICKLY = {**OPTIONS, "xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
"""For what runs for seconds at most: XLA compiles the step of a RealNVP in 2.2 s, not 5.6, and it runs 5 to 15 % slower
(a spline's by a half). Not level 0, whose code has been seen to compute something else. CPUs only."""


def wide_jit(function: Callable[..., _Out]) -> Callable[..., _Out]:
    """`equinox.filter_jit` with `OPTIONS`."""
    return _where_known(partial(eqx.filter_jit, function), function, OPTIONS)


def quick_jit(function: Callable[..., _Out]) -> Callable[..., _Out]:
    """`equinox.filter_jit` with the options `QUICKLY`."""
    return _where_known(partial(eqx.filter_jit, function), function, QUICKLY)


def rows_jit(function: Callable[..., _Out]) -> Callable[..., Callable[[Any], _Out]]:
    """`function(*what, rows)` jitted for `in_pieces`: what -> (rows -> the function's value).

    What is told apart into arrays and the rest once, not at every call, and rows may be NumPy's: of a call's 0.5 ms
    0.05 are left.
    """
    return _of_rows(function, OF_ROWS)


def quick_rows_jit(function: Callable[..., _Out]) -> Callable[..., Callable[[Any], _Out]]:
    """As `rows_jit`, with the options `QUICKLY`."""
    return _of_rows(function, QUICKLY)


def _of_rows(function: Callable[..., _Out], options: dict[str, Any]) -> Callable[..., Callable[[Any], _Out]]:

    def of_parts(rest: _Rest, arrays: tuple[Any, ...], rows: Any) -> _Out:
        return function(*rest.around(arrays), rows)

    of_parts.__name__ = function.__name__
    jitted = _where_known(partial(jax.jit, of_parts, static_argnums=0), function, options)

    @wraps(function)
    def bind(*what: Any) -> Callable[[Any], _Out]:
        rest = _Rest(what)
        return partial(jitted, rest, tuple(x for x in jax.tree.leaves(what) if eqx.is_array(x)))

    return bind


class _Rest:
    """A pytree without its arrays, hashed once."""

    def __init__(self, tree: Any) -> None:
        leaves, self._structure = jax.tree.flatten(tree)
        self._leaves = tuple(None if eqx.is_array(x) else x for x in leaves)
        self._is_array = tuple(map(eqx.is_array, leaves))
        self._parts = self._leaves, self._is_array, self._structure
        self._hash = hash(self._parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Rest) and self._parts == other._parts)

    def around(self, arrays: tuple[Any, ...]) -> Any:
        """The tree with these arrays."""
        given = iter(arrays)
        pairs = zip(self._leaves, self._is_array, strict=True)
        return jax.tree.unflatten(self._structure, [next(given) if is_array else x for x, is_array in pairs])


def _where_known(
    jit: Callable[..., Callable[..., _Out]], function: Callable[..., Any], options: dict[str, Any]
) -> Callable[..., _Out]:
    """What `jit` makes with those of the options that are for the device, or without where this XLA lacks one.

    One thread at a time: who asks for a program that another (`ahead`) is compiling waits for it.
    """
    jitted: list[Callable[..., _Out]] = []
    lock = threading.RLock()

    @wraps(function)
    def call(*args: Any) -> _Out:
        with lock:
            if not jitted:
                # not before the first call: it is the user who chooses the device
                on_cpu = jax.default_backend() == "cpu"
                known = {k: v for k, v in options.items() if on_cpu or k.startswith("xla_cpu")}
                jitted.append(jit(compiler_options=known))
            try:
                return jitted[0](*args)
            except jax.errors.JaxRuntimeError as error:
                if "No such compile option" not in str(error):
                    raise
                jitted[0] = jit()
                return jitted[0](*args)

    return call
