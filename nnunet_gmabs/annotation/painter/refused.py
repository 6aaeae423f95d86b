"""The one exception for a request that the painter does not carry out; its text is shown to the annotator."""


class RefusedError(Exception):
    """Nothing was changed.

    Args:
        status: HTTP status: 403, 404, 409 (somebody or something else was faster) or 422.
        message: for the annotator: what happened and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
