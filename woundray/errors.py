"""Errors that are told in one line."""


class UserError(Exception):
    """A mistake in what the user gave: one line that names the file or field and the mend.

    Commands print it without a traceback and exit with code 2.
    """


class NonFiniteError(RuntimeError):
    """A loss, gradient, score or picture that is infinite or not a number: the run can not go on.

    It says where that was, and the setting that mends it.
    """


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a study or run: one line that says what is kept and how to go on. Exit code 130."""
