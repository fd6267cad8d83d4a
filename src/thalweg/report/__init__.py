"""A posterior as one self-contained HTML page."""

from thalweg.report._report import report

__all__ = ["report"]
