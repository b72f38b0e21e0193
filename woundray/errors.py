"""The error that a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave: one line that names the file or field and the mend.

    Commands print it without a traceback and exit with code 2.
    """
