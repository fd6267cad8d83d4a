"""Work done ahead of its need, in a thread: XLA compiles without Python's lock, so another core can do it meanwhile."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from thalweg._core._precision import precision, resolve_dtype

_lock = threading.RLock()
_over: ContextVar[threading.Event | None] = ContextVar("over", default=None)
"""Set when what this thread, or the threads that it begins, work for is over."""


class _OverError(Exception):
    """Nobody waits for this work any more."""


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Around a user's function: what it keeps for the whole process must not be met by two threads at once.

    So does NumPyro's stack of handlers.
    """
    with _lock:
        over = _over.get()
        if over is not None and over.is_set():
            raise _OverError
        yield


@contextlib.contextmanager
def no_longer_than_this() -> Iterator[None]:
    """Once this is left, no work that was begun `ahead` inside it calls a user's function any more.

    What is being compiled by then is compiled to its end, which nobody notices; nobody waits for it.
    """
    over = threading.Event()
    token = _over.set(over)
    try:
        yield
    finally:
        _over.reset(token)
        over.set()
        with _lock:  # a function that is being called now ends
            pass


def ahead(work: Callable[[], Any]) -> Callable[[], None]:
    """Call `work` in a thread, in the precision that holds here.

    For what leaves its result in a cache, a compiled program above all. An error is dropped: whoever needs the work
    asks for it again, and hears of it then.

    Returns:
        A function that waits for the end of it.
    """
    dtype, over = resolve_dtype(), _over.get()

    def run() -> None:
        _over.set(over)
        with contextlib.suppress(Exception), precision(dtype):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    return thread.join
