"""Drawn wound photographs for demonstrations, tests and pretraining.

clinic (camera and light) + tissue (skin and wound) -> render -> camera -> sRGB photograph.
"""
