"""What the Search service refuses, in its own words."""

from __future__ import annotations

import uuid
from typing import Any

__all__ = ["SearchError"]


class SearchError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @classmethod
    def bad_request(cls, message: str) -> SearchError:
        return cls(400, "BadRequest.ValidationError", message)

    @classmethod
    def no_index(cls, index_id: str) -> SearchError:
        return cls(404, "NotFound.NoSuchIndex", f"There is no search index {index_id}")

    @property
    def body(self) -> dict[str, Any]:
        return {
            "@datatype": "GError",
            "@version": "2017-09-01",
            "status": self.status,
            "code": self.code,
            "message": self.message,
            "request_id": uuid.uuid4().hex,
        }
