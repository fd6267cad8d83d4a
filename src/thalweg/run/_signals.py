"""SIGINT and SIGTERM ask a run to stop at the next pause; a second one stops it at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a signal has come."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        """True once a signal has come."""
        return self.signal is not None

    @property
    def name(self) -> str:
        """Of the signal that has come."""
        return "" if self.signal is None else signal.Signals(self.signal).name


@contextmanager
def listen() -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM only sets the request that is yielded; the second raises KeyboardInterrupt.

    Off the main thread Python allows no handlers: then signals act as they always did.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = number

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


_AGAIN = 0.05
"""Seconds after which a lost interruption is sent once more: whatever lost it has returned by then."""


@contextmanager
def insist() -> Iterator[None]:
    """Inside, a KeyboardInterrupt that was raised where Python can only report it comes again, as another SIGTERM.

    JAX's callback at garbage collection is such a place, and so are finalisers: without this, a Ctrl-C there only
    prints "Exception ignored in". For the main thread, where SIGTERM has been made to raise.
    """
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            return before(unraisable)
        again = threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        return again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
