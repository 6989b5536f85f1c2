"""The base of every error that this package raises on purpose."""


def printable(text: str) -> str:
    """What can be written and shown anywhere: bytes of a name that are no text are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


class RestokError(ValueError):
    """A file, a setting or an input that cannot be used. The message names it and the remedy; the command shows that alone."""

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(RestokError):
    """A value that a function does not take: of another kind, shape or range than its documentation says."""
