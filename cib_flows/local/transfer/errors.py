"""A request that the Transfer service refuses, in the service's own shape."""

from __future__ import annotations

from typing import Any

__all__ = ["TransferError"]


class TransferError(Exception):
    """``code`` is one of the service's, such as ``NotFound`` or ``ClientError.BadRequest``."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self, resource: str = "") -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "request_id": "local",
            "resource": resource,
        }

    @classmethod
    def bad_request(cls, message: str) -> TransferError:
        return cls(400, "ClientError.BadRequest", message)
