"""From a posterior to a file."""

from pathlib import Path
from typing import Any

from thalweg._core import import_guest, requirement, write_atomically
from thalweg.calibrate import Calibration
from thalweg.report._content import gather
from thalweg.report._figures import draw_calibration, draw_figures
from thalweg.report._page import render, render_calibration


def preload() -> None:
    """Import what a report is drawn and written with: half a second that a command can spend while a fit compiles."""
    for name in ("matplotlib.figure", "matplotlib.backends.backend_svg", "jinja2"):
        import_guest(name, "core")


def report(posterior: Any, path: str | Path) -> Path:
    """Write what is known of a posterior, or of a calibration, as one HTML page that needs nothing else, no network.

    The verdict comes first; then the evidence, the parameters, raw and corrected draws, the tail of the weights, the
    fit, a predictive check, the settings. What cannot be had (corrected draws of a posterior loaded without its
    target, say) is left out, and the page says why.

    Args:
        posterior: a `Posterior`, or a `Calibration`: its sentence, ranks in their bands, coverage.
        path: the file to write, whole or not at all.

    Returns:
        The path.

    Raises:
        ValueError: if it is neither.
        OSError: if the file cannot be written.
    """
    if isinstance(posterior, Calibration):
        html = render_calibration(posterior, *draw_calibration(posterior.quantities()))
    elif hasattr(posterior, "verdict"):
        content = gather(posterior)
        html = render(content, draw_figures(content))
    else:
        got = f"a {type(posterior).__name__}"
        raise ValueError(requirement("posterior", "be a Posterior", got, "a file is read by thalweg.load"))
    return write_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))
