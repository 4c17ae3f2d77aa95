"""Errors of the server as a whole, in the shape of the service that was asked.

Clients read an error by the service they spoke to: the ``globus`` command ends in a traceback where an
error of Flows is not below ``error``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.responses import JSONResponse

from cib_flows.local.flows.errors import Refusal

__all__ = ["not_served", "refusal"]

_OF_FLOWS = re.compile(r"/(flows|runs|web_inputs|registered_apis|batch)(/|$)")

# What the SDK and the command line have calls for and the local Globus does not serve.
_NOT_SERVED = (
    (r"/v2/(groups|preferences|subscription_info)", "Globus Groups"),
    (r"/(jobs|v2/timer)", "Globus Timers"),
    (r"/v2/(tunnels|stream_access_points)", "tunnels"),
    (r"/v0\.10/endpoint/[^/]+/(role|role_list)", "roles of collections"),
    (r"/v0\.10/(shared_endpoint|endpoint/[^/]+/(my_)?shared_endpoint_list)", "guest collections"),
    (r"/v0\.10/(bookmark|bookmark_list)", "bookmarks"),
    (r"/v0\.10/endpoint_manager", "the views of collections' managers"),
    (r"/batch", "changes of many runs at once"),
)


def refusal(
    path: str, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error for a request of ``path``."""
    if _OF_FLOWS.match(path):
        return JSONResponse(Refusal(status, code, message).document(), status, headers)
    return JSONResponse({"code": code, "message": message}, status, headers)


def not_served(method: str, path: str, status: int = 404) -> JSONResponse:
    """The answer where there is no route: 501 for what Globus has and the local one has not, else
    ``status``."""
    for pattern, what in _NOT_SERVED:
        if re.match(pattern + "(/|$)", path):
            message = f"The local Globus does not serve {what} ({method} {path})."
            return refusal(path, 501, "NOT_IMPLEMENTED", message)
    return refusal(path, status, "NOT_FOUND", f"The local Globus has no {method} {path}.")
