"""A posterior as one self-contained HTML page."""

from thalweg.report._report import preload, report

__all__ = ["preload", "report"]
