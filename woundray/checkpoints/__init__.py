"""Trained checkpoints: found by reference, opened, sampled from, evaluated, compared and exported.

A reference (`best`, a folder, `runs:/ID`) -> find -> generate (uint8 images) -> evaluate or compare (scores), or export
(files). evaluation_data: the photographs that a checkpoint is evaluated against.
"""
