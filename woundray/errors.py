"""Exceptions whose message is one line for the user."""


class UserError(Exception):
    """Mistake in the user's input: one line that names the file or field, and how to correct it.

    Commands print it without a traceback and exit with code 2.
    """


class NonFiniteError(RuntimeError):
    """Loss, gradient, score or image that is infinite or not a number: the run can not continue.

    The message names where it was found, and the setting that prevents it.
    """


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a study or run: one line with what is kept and how to continue. Exit code 130."""
