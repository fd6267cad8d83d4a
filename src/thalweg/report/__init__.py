"""Placeholder until the page is here."""

from pathlib import Path
from typing import Any


def report(posterior: Any, path: str | Path) -> Path:
    """Placeholder."""
    Path(path).write_text(str(posterior))
    return Path(path)
