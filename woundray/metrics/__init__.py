"""Metrics of image sets, one family a file: images -> features (extractors) -> distances (pure functions)."""
