"""Journal of a study on disk, and its copy in MLflow. The only importer of MLflow.

journal (events.jsonl) -> tracker (a thread) -> mlflow_runs -> model_registry.
"""
