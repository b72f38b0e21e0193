"""Metrics of sets of images, one family a file: images -> features (extractors) -> distances (pure functions).

real_baseline measures a metric of real against real photographs; threshold and score hold the results. A new metric is
a function here, and an entry in woundray/evaluation/set_metrics.py.
"""
