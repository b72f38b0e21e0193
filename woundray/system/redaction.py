"""Remove secrets from text that is printed, logged or sent to MLflow."""

import os
import re

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")  # user:password@ of an address
_NAMES = re.compile(r"TOKEN$|PASSWORD$|SECRET|ACCESS_KEY|ACCOUNT_KEY|CREDENTIALS$")
_MIN_SECRET_LENGTH = 6  # shorter values are part of other words
_HIDDEN = "***"


def redact(text: str) -> str:
    """Replace passwords in addresses, and values of secret environment variables, by `***`.

    A variable is secret by its name, such as RAY_AUTH_TOKEN, MLFLOW_TRACKING_PASSWORD or AWS_SECRET_ACCESS_KEY.
    """
    text = _PASSWORD.sub(f"{_HIDDEN}@", text)
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value) >= _MIN_SECRET_LENGTH:
            text = text.replace(value, _HIDDEN)
    return text
