"""The report of a study: one HTML file that needs nothing else; and its charts alone."""

from woundray.reporting.facts import best_checkpoints
from woundray.reporting.render import write_charts, write_report

__all__ = ["best_checkpoints", "write_charts", "write_report"]
