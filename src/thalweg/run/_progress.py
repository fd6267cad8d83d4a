"""A progress bar that never makes the device wait: it is fed between chunks."""

import sys
from typing import Any

from thalweg._core import import_guest

_WHOLE = 10
"""From so many steps a second on, the rate has no decimals."""


class Progress:
    """One line on standard error: stage, bar, ELBO (or another number), steps a second, time left.

    Does nothing where `show` is False.

    Args:
        show: whether to draw.
    """

    def __init__(self, *, show: bool) -> None:
        self._bar: Any = None
        self._show = show
        self._task: Any = None

    def __enter__(self) -> "Progress":
        """Nothing is drawn before the first stage, so that an error before it stands alone."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, total: int, quantity: str = "ELBO") -> None:
        """A new line for a new stage, with the name of what it shows."""
        if self._show and self._bar is None:
            self._start()
        if self._bar is not None:
            self._task = self._bar.add_task(name, total=total, quantity=quantity, elbo="...", rate="...")

    def update(self, step: int, elbo: float, rate: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, elbo=f"{elbo:.2f}", rate=f"{rate:,.0f}" if rate >= _WHOLE else f"{rate:.1f}"
            )

    def finish(self, step: int) -> None:
        """The stage took `step` steps in the end."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=step)

    def _start(self) -> None:
        columns, console = import_guest("rich.progress", "cli"), import_guest("rich.console", "cli")
        self._bar = columns.Progress(
            columns.TextColumn("{task.description:<16}"),
            columns.BarColumn(bar_width=24),
            columns.MofNCompleteColumn(),
            columns.TextColumn("{task.fields[quantity]} {task.fields[elbo]}  {task.fields[rate]} steps/s"),
            columns.TimeRemainingColumn(compact=True),
            console=console.Console(file=sys.stderr),
            refresh_per_second=8,
        )
        self._bar.start()
