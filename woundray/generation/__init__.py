"""Synthetic data sets: images generated from checkpoints, filtered, and stored with their provenance.

fill_folder -> generate_until_enough -> generator (images) -> image filter -> picture_folder (PNG files and manifest).
"""
