"""Who may talk to the server at all, and how much they may send at once."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cib_flows.local import login
from cib_flows.local.auth import AuthService
from cib_flows.local.refusals import refusal

__all__ = ["Guard"]

MAX_BODY = 11 * 1024 * 1024  # the service's 10 MB, and room for what stands around it

_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
# Answered without a token: the token route checks the client's secret itself, whoever holds a token
# may revoke it, the version is no secret.
_OPEN_PATHS = {
    "/v2/oauth2/token",
    "/v2/oauth2/token/revoke",
    "/v2/version",
    *login.OPEN_PATHS,
}
_CLIENT_PATHS = {
    "/v2/oauth2/token/introspect",
    "/v2/oauth2/token/validate",
    "/v2/api/identities",
}


class Guard:
    """Lets in only loopback names (a web page that rebinds its own name to 127.0.0.1 sends another
    Host) and only callers with a token; tells the routes who calls; bounds what one request may
    send."""

    def __init__(self, app: ASGIApp, auth: AuthService) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refuse(request)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        path = request.url.path
        if not _is_loopback(request.headers.get("host", "")):
            return refusal(path, 403, "FORBIDDEN", "This service answers to loopback names only.")
        origin = request.headers.get("origin")
        if origin is not None and not _is_loopback(origin.partition("://")[2]):
            return refusal(path, 403, "FORBIDDEN", "This service does not answer other web sites.")
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return refusal(path, 413, "PAYLOAD_TOO_LARGE", "A request may hold at most 10 MB.")
        if "transfer-encoding" in request.headers:
            return refusal(path, 411, "LENGTH_REQUIRED", "A request must state its length.")
        authorization = request.headers.get("authorization")
        identity = self._auth.identify(authorization)
        if identity is None and path in _CLIENT_PATHS:
            # These accept the client's own id and secret in place of a token.
            identity = self._auth.client(authorization, {})
        if identity is None and path not in _OPEN_PATHS:
            return refusal(
                path,
                401,
                "AUTHENTICATION_ERROR",
                "The request holds no valid bearer token of this home.",
            )
        request.state.identity = identity
        request.state.scopes = self._auth.scopes(authorization)
        return None


def _is_loopback(authority: str) -> bool:
    name, _, port = (
        authority.rpartition(":") if not authority.endswith("]") else (authority, "", "0")
    )
    if not name:
        name, port = authority, "0"
    return name.lower() in _LOOPBACK_NAMES and port.isdigit()
