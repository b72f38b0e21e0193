"""Gain of a classifier's Cohen's kappa from synthetic images, measured on unseen patients.

cohort -> folds -> generators -> synthetic pools -> arms -> classifiers -> outcome (statistics) -> result files.
"""
