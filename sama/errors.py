"""The one exception that the command line turns into a single line."""


class SamaError(ValueError):
    """Something the user can mend: the message says what is wrong, where, and what was expected."""
