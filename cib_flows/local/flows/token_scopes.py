"""Which scope a request's token must have."""

from __future__ import annotations

from starlette.requests import Request

from .documents import flow_scope
from .errors import Refusal

__all__ = [
    "ASKED",
    "FLOW_USER",
    "IN_HANDLER",
    "MANAGE_FLOWS",
    "MANAGE_RUNS",
    "RESUME",
    "VIEW_FLOWS",
    "VIEW_RUNS",
    "require_scope",
]

_FLOWS = "https://auth.globus.org/scopes/eec9b274-0c81-4334-bdc2-54e90e689b9a/"
# Stands for the scope of a flow of its own.
_USER = "user"

# The first one is the one that is named when none is there.
MANAGE_FLOWS = ("manage_flows", "all")
VIEW_FLOWS = ("view_flows", "manage_flows", "all")
VIEW_RUNS = ("run_status", "run_manage", "all")
MANAGE_RUNS = ("run_manage", "all")
ASKED = ("view_flows", "run_status", "run_manage", "all")
FLOW_USER = (_USER,)
RESUME = (_USER, "run_manage", "all")
# The handler asks, once it knows which flow it is about.
IN_HANDLER: tuple[str, ...] = ()


def require_scope(request: Request, allowed: tuple[str, ...], flow_id: str | None = None) -> None:
    """Let a token pass that has one of the ``allowed`` scopes. The server's middleware sets
    ``request.state.scopes``; where it is None or absent, the token has every scope.

    :param flow_id: the flow whose own scope counts; by default the one in the request's path
    :raises Refusal: 403 ``MISSING_SCOPE``
    """
    held: frozenset[str] | None = getattr(request.state, "scopes", None)
    if held is None or not allowed:
        return
    flow = flow_id or str(request.path_params.get("id", "")).lower()
    urls = [flow_scope(flow) if name == _USER else _FLOWS + name for name in allowed]
    if not held.intersection(urls):
        raise Refusal(403, "MISSING_SCOPE", f"This action requires the following scope: {urls[0]}")
