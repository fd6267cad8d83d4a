"""Work done ahead of its need, in a thread: XLA compiles without Python's lock, so another core can do it meanwhile."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from thalweg._core._precision import precision, resolve_dtype

one_at_a_time = threading.RLock()
"""Held while a user's function runs: what it keeps for the whole process (NumPyro's stack of handlers, say) must not be
met by two threads at once."""


def ahead(work: Callable[[], Any]) -> Callable[[], None]:
    """Call `work` in a thread, in the precision that holds here.

    For what leaves its result in a cache, a compiled program above all. An error is dropped: whoever needs the work
    asks for it again, and hears of it then.

    Returns:
        A function that waits for the end of it.
    """
    dtype = resolve_dtype()

    def run() -> None:
        with contextlib.suppress(Exception), precision(dtype):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    return thread.join
