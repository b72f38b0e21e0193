"""Drawn wound photographs for demonstrations, tests and pretraining.

clinic (camera, light) + tissue (skin, wound) -> render -> camera -> sRGB image.
"""
