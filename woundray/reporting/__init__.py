"""The report of a study: one HTML file that needs nothing else; and its charts alone."""

from woundray.reporting.html import write_charts, write_report
from woundray.results.study import best_checkpoints

__all__ = ["best_checkpoints", "write_charts", "write_report"]
