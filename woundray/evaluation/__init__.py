"""Scores of generated images against photographs of held-out patients.

images -> embedders (features) -> epoch_metrics or full_evaluation, against real_reference and thresholds.
image_filter decides on one image at a time; paired_comparison compares sets of images of the same seeds.
"""
