"""woundray: synthetic wound photographs that are near to real ones, copy no patient, and are measured honestly."""

__version__ = "0.1.0"
