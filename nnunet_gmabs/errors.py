"""The one exception for bad input: its text names the file, the value and the cure."""


class InputError(ValueError):
    """Something a user gave is wrong; nothing was changed.

    The message is written for that user: which file, which value, what to do. The command line
    prints it without a traceback.
    """
