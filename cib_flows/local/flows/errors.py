"""What can go wrong in the Flows service: inside a run, and at its door.

Exception
├── StateError        a state cannot do its work; a Catch may take it, otherwise the run fails
└── Refusal           a request is answered with an error document
"""

from __future__ import annotations

import uuid
from typing import Any

__all__ = ["Refusal", "StateError", "unprocessable"]


class StateError(Exception):
    """A state failed.

    :param error: the name a ``Catch`` compares, for instance ``ActionTimeout``
    :param cause: one sentence, or the action's status document
    """

    def __init__(self, error: str, cause: Any) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class Refusal(Exception):
    """A request the service refuses, in the words and the shape of the real one."""

    def __init__(self, status: int, code: str, detail: Any, message: str | None = None) -> None:
        super().__init__(message or str(detail))
        self.status = status
        self.code = code
        self.detail = detail
        self.message = message

    def document(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "detail": self.detail}
        if self.message is not None:
            error["message"] = self.message
        return {"error": error, "debug_id": str(uuid.uuid4())}


def unprocessable(problems: list[dict[str, Any]]) -> Refusal:
    """The 422 answer for a body with ``problems``, each ``{"loc", "msg", "type"}``."""
    count = len(problems)
    sentences = [
        ".".join(["$", *(str(part) for part in problem["loc"])]) + f": {problem['msg']}"
        for problem in problems
    ]
    message = f"{count} validation error{'' if count == 1 else 's'} in body. " + " ".join(sentences)
    return Refusal(422, "UNPROCESSABLE_ENTITY", problems, message)
