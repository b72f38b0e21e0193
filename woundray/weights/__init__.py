"""Weights files on this machine: download, SHA-256 check, staging, and archives for machines without internet.

repositories | feature_weights (names, hashes) -> hub | download -> folder of weights -> base_models | staging.
"""
