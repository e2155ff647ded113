"""The error that every part of the local emulator answers an AWS call with."""

__all__ = ["ServiceError"]


class ServiceError(Exception):
    """An AWS error of the JSON protocols, as botocore parses it back into a `ClientError`.

    Args:
        code: AWS's error code, for example `TargetNotConnected`.
        message: AWS's wording, as near as it is known.
        status: the HTTP status; 400 for everything that the caller could do better.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status

    def to_json(self) -> dict[str, str]:
        """The body of the response."""
        return {"__type": self.code, "message": self.message}
