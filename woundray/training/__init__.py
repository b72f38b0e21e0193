"""Training of one adapter: precompute -> train_state -> loop (random_inputs, train_step) -> checkpoint.

Without Ray and MLflow: the caller passes a `report(metrics, checkpoint)` callback.
"""
