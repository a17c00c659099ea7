"""The one error of data."""


class DataError(ValueError):
    """The data cannot be used.  One line that says what to do."""
