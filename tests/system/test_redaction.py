"""Secrets do not reach terminals, logs or MLflow."""

import logging
import sys

import pytest

from woundray.cli import terminal
from woundray.errors import UserError
from woundray.system.redaction import redact


def test_passwords_of_addresses_are_hidden() -> None:
    text = "MLFLOW_TRACKING_URI: https://mira:s3cret@mlflow.example.org/x does not answer"
    assert redact(text) == "MLFLOW_TRACKING_URI: https://***@mlflow.example.org/x does not answer"
    assert redact("sqlite:///runs/mlflow.db and mira@example.org") == "sqlite:///runs/mlflow.db and mira@example.org"


@pytest.mark.parametrize(
    "name",
    ["RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"],
)
def test_values_of_secret_variables_are_hidden(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "0123456789abcdef")
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", "/weights")
    assert redact("a 0123456789abcdef in /weights") == "a *** in /weights"

    def refused() -> None:
        raise UserError("the server said: bad token 0123456789abcdef")

    with pytest.raises(SystemExit):
        terminal.run(refused)
    assert capsys.readouterr().err == "woundray: the server said: bad token ***\n"


def test_log_lines_are_redacted_with_their_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open sesame")
    try:
        raise ValueError("open sesame")
    except ValueError:
        record = logging.LogRecord("woundray", logging.ERROR, "x", 1, "asked %s", ("open sesame",), None)
        record.exc_info = sys.exc_info()
    assert "open sesame" not in terminal.RedactingFormatter("%(message)s").format(record)
