"""Secrets are taken out of whatever is printed, logged or sent to MLflow."""

import os
import re

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")  # user:password@ of an address
_NAMES = re.compile(r"TOKEN$|PASSWORD$|SECRET|ACCESS_KEY|ACCOUNT_KEY|CREDENTIALS$")
_SHORTEST = 6  # shorter values are no secrets, and stand in other words
_HIDDEN = "***"


def redact(text: str) -> str:
    """The text without passwords of addresses and without the values of secret environment variables.

    A variable is secret by its name, such as RAY_AUTH_TOKEN, MLFLOW_TRACKING_PASSWORD or AWS_SECRET_ACCESS_KEY.
    """
    text = _PASSWORD.sub(f"{_HIDDEN}@", text)
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN)
    return text
