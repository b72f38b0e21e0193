"""Training of one adapter: precompute -> train_state -> loop -> train_step -> checkpoint.

It knows neither Ray nor MLflow: a `report(metrics, checkpoint)` callable comes in.
"""
