"""Scores of generated images against photographs of held-out patients.

images -> embedders (features) -> epoch_metrics or full_evaluation, against real_reference.
image_filter decides on one image at a time.
"""
