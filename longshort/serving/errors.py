"""What a request is refused with, in the shape of OpenAI's errors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RequestError(Exception):
    """One sentence for the client.

    Attributes:
        message: what, which value, what to do.
        param: the key of the request that it is about.
        status: of HTTP.
        code: for programs, such as ``"context_length_exceeded"``.
        retry_after: seconds, where the same request may succeed later.
    """

    message: str
    param: str | None = None
    status: int = 400
    code: str | None = None
    retry_after: int | None = None

    def body(self) -> dict[str, object]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
