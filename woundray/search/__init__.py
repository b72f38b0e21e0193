"""Hyperparameter search: Ray Tune runs trials, Optuna proposes values, ASHA stops poor trials early.

session (data, cluster, tracker) -> study -> trial (one training run) -> finalists -> finish_study.

Some of these modules import Ray: call `woundray.ray_cluster.settings.configure_environment` before importing them.
"""
