"""Gain in Cohen's kappa that synthetic images give a classifier, on patients that nothing saw.

cohort -> folds -> generators -> synthetic pools -> arms -> classifiers -> outcome (statistics) -> result files.
"""
