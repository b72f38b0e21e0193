"""Results of a study, read from its journal: trials, best trial, and the scores they are compared with.

journal (`woundray.tracking`) -> trials -> study.
"""
