"""Hyperparameter search: Ray Tune runs trials, Optuna proposes values, ASHA stops poor trials early.

session (data, cluster, tracker) -> study -> trial (one training run) -> finalists -> finish_study."""

import woundray.ray_cluster.connection  # noqa: F401  Ray reads the settings that it makes when it is imported
