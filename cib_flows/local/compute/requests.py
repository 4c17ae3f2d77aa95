"""Reads what the Compute service's routes are sent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from cib_flows.local.compute.wire import ComputeError

__all__ = ["Handler", "read_body", "read_uuid"]

Handler = Callable[[Request], Awaitable[Any]]


async def read_body(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises :class:`ComputeError` (400) for anything else."""
    try:
        body = json.loads(await request.body() or b"null")
    except ValueError:
        raise ComputeError(400, "MALFORMED_REQUEST", "The request body is not JSON.") from None
    if not isinstance(body, dict):
        raise ComputeError(400, "MALFORMED_REQUEST", "The request body must be a JSON object.")
    return body


def read_uuid(text: Any, what: str) -> str:
    """``text`` as a UUID is written. Raises :class:`ComputeError` (422) naming ``what``."""
    try:
        return str(uuid.UUID(str(text)))
    except ValueError:
        raise ComputeError(
            422, "SEMANTICALLY_INVALID", f"Request payload failed validation: {what} is not a UUID"
        ) from None
