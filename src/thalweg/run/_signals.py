"""SIGINT and SIGTERM ask a run to stop at the next pause; a second one stops it at once."""

import signal
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
