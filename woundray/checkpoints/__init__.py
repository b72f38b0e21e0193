"""Trained checkpoints: found by reference, opened, sampled from, evaluated, compared and exported.

A reference (`best`, a folder, `runs:/ID`) -> find -> generate (uint8 images) -> evaluate (scores) or export (files).
"""
