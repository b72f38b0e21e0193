"""HTML report of a study (one self-contained file), and its charts as SVG files."""

from woundray.reporting.html import write_charts, write_report
from woundray.results.study import best_checkpoints

__all__ = ["best_checkpoints", "write_charts", "write_report"]
