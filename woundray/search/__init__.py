"""The search over configurations."""

import woundray.cluster  # noqa: F401  Ray reads the settings that it makes when it is imported
