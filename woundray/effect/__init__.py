"""Does the synthetic data help? Cohen's kappa of a phase classifier with and without it, on patients that neither the
generator, nor the filter, nor the classifier saw."""
