"""The base of every error that this package raises on purpose."""


class RestokError(ValueError):
    """A file, a setting or an input that cannot be used. The message names it and the remedy; the command shows that alone."""

    def __str__(self) -> str:
        return super().__str__().encode("utf-8", "backslashreplace").decode()      # of a name whose bytes are no text


class InputError(RestokError):
    """A value that a function does not take: of another kind, shape or range than its documentation says."""
