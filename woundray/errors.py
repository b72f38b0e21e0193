"""Errors that commands print as one line."""


class UserError(Exception):
    """Mistake in a user's input: one line that names the file or field and the mend.

    Commands print it without a traceback and exit with code 2.
    """


class NonFiniteError(RuntimeError):
    """Infinite or NaN loss, gradient, score or image: the run can not continue.

    The message names the place, and the setting that mends it.
    """


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a study or run: one line on what is kept and how to continue. Exit code 130."""
