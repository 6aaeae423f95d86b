"""The one exception for bad input: its text names the file, the value and the cure."""


class InputError(ValueError):
    """Something a user gave is wrong; nothing was changed.

    The message is written for that user: which file, which value, what to do. The command line
    prints it without a traceback.
    """


def reason(error: BaseException) -> str:
    """The last line of an error's text, where image libraries say what is wrong; its type where it has no text."""
    return _lines(error)[-1]


def first_line(error: BaseException) -> str:
    """The first line of an error's text, where torch says what is wrong; its type where it has no text."""
    return _lines(error)[0]


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]
