"""Which scope a request's token must have."""

from __future__ import annotations

from starlette.requests import Request

from .documents import flow_scope
from .errors import Refusal

__all__ = ["FLOW_USER", "MANAGE_FLOWS", "MANAGE_RUNS", "RESUME", "VIEW_FLOWS", "VIEW_RUNS"]
__all__ += ["ASKED", "require_scope"]

_FLOWS = "https://auth.globus.org/scopes/eec9b274-0c81-4334-bdc2-54e90e689b9a/"
# Stands for the scope of the flow that the request's path names.
_USER = "user"

# The first one is the one that is named when none is there.
MANAGE_FLOWS = ("manage_flows", "all")
VIEW_FLOWS = ("view_flows", "manage_flows", "all")
VIEW_RUNS = ("run_status", "run_manage", "all")
MANAGE_RUNS = ("run_manage", "all")
ASKED = ("view_flows", "run_status", "run_manage", "all")
FLOW_USER = (_USER,)
# With the flow's scope, as the SDK's SpecificFlowClient does; the flow is not in the path.
RESUME = ("run_manage", "all", _USER)


def require_scope(request: Request, allowed: tuple[str, ...]) -> None:
    """Let a token pass that has one of the ``allowed`` scopes. The server's middleware sets
    ``request.state.scopes``; where it is None or absent, the token has every scope.

    :raises Refusal: 403 ``MISSING_SCOPE``
    """
    held: frozenset[str] | None = getattr(request.state, "scopes", None)
    if held is None:
        return
    for name in allowed:
        if name != _USER and _FLOWS + name in held:
            return
        if name == _USER and allowed == FLOW_USER and flow_scope(_id(request)) in held:
            return
        if name == _USER and allowed == RESUME and any(_is_flow_scope(scope) for scope in held):
            return
    needed = flow_scope(_id(request)) if allowed == FLOW_USER else _FLOWS + allowed[0]
    raise Refusal(403, "MISSING_SCOPE", f"This action requires the following scope: {needed}")


def _id(request: Request) -> str:
    return str(request.path_params.get("id", "")).lower()


def _is_flow_scope(scope: str) -> bool:
    flow_id, _, name = scope.removeprefix("https://auth.globus.org/scopes/").partition("/")
    return name == f"flow_{flow_id.replace('-', '_')}_user"
