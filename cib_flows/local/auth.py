"""Globus Auth, as far as applications with a client id and secret need it.

Tokens carry their own contents, signed with the home's key, so that a restart forgets none of them;
only revocations are stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cib_flows.local.actions import Identity
from cib_flows.local.consents import Consents
from cib_flows.local.database import Database
from cib_flows.local.identities import Identities
from cib_flows.local.login import LoginDesk

__all__ = ["AuthService", "Grant", "resource_server", "split_scopes"]

ACCESS_LIFETIME = 172_800  # two days, as the service grants
REFRESH_LIFETIME = 180 * 86_400
CODE_LIFETIME = 600
NATIVE = "native-refresh"  # a refresh token of an application without a secret
STATIC = "static"  # the id of the token in the home's file, which is never revoked

_LIFETIMES = {
    "access": ACCESS_LIFETIME,
    "refresh": REFRESH_LIFETIME,
    NATIVE: REFRESH_LIFETIME,
    "code": CODE_LIFETIME,
}

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS auth_revoked (token_id TEXT PRIMARY KEY, expires REAL NOT NULL)"
)

# Scopes whose URL names a client that goes by another name as a resource server.
_NAMED_SERVERS = {
    "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9": "funcx_service",
    "eec9b274-0c81-4334-bdc2-54e90e689b9a": "flows.globus.org",
    "73320ffe-4cb4-4b25-a0a3-83d53d59ce4f": "groups.api.globus.org",
}
_OPENID = {"openid", "profile", "email", "offline_access"}


def split_scopes(text: str) -> list[str]:
    """The top-level scopes of a scope string; what stands in brackets depends on the scope before
    it."""
    scopes: list[str] = []
    depth = 0
    word = ""
    for character in text + " ":
        if character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
        elif depth == 0 and character in " +\t\n":
            if word:
                scopes.append(word)
            word = ""
        elif depth == 0:
            word += character
    return list(dict.fromkeys(scopes))


def resource_server(scope: str) -> str:
    """The resource server whose token answers for ``scope``."""
    if scope in _OPENID:
        return "auth.globus.org"
    if scope.startswith("urn:globus:auth:scope:"):
        return scope.split(":")[4]
    if scope.startswith("https://auth.globus.org/scopes/"):
        owner = scope.removeprefix("https://auth.globus.org/scopes/").split("/")[0]
        return _NAMED_SERVERS.get(owner, owner)
    return "auth.globus.org"


@dataclass(frozen=True)
class Grant:
    """What a token says: whose it is, for which service and scopes, and until when."""

    subject: str
    server: str
    scopes: str
    kind: str
    token_id: str
    issued: int
    expires: int


class AuthService:
    """Issues and checks tokens for the home's clients, each of which is an identity of its own."""

    def __init__(
        self,
        signing_key: str,
        identities: Identities,
        database: Database,
        desk: LoginDesk | None = None,
    ) -> None:
        self._desk = desk
        self._identities = identities
        self._key = bytes.fromhex(signing_key)
        self._database = database
        database.create(SCHEMA)
        self.consents = Consents(database)
        self.identity = identities.own.identity

    # -- tokens --------------------------------------------------------------------------------

    def issue(
        self, server: str, scopes: Iterable[str], kind: str = "access", subject: str | None = None
    ) -> str:
        now = int(time.time())
        lifetime = _LIFETIMES[kind]
        claims = {
            "sub": subject or self.identity.id,
            "srv": server,
            "scp": " ".join(scopes),
            "typ": kind,
            "jti": secrets.token_hex(8),
            "iat": now,
            "exp": now + lifetime,
        }
        body = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(
            b"="
        )
        return f"{body.decode()}.{self._sign(body)}"

    def _sign(self, body: bytes) -> str:
        digest = hmac.new(self._key, body, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def read(self, token: str, kind: str = "access") -> Grant | None:
        """What a token of this home grants; None for any other, expired or revoked text."""
        if kind == "access" and (owner := self._identities.with_token(token)) is not None:
            far = int(time.time()) + ACCESS_LIFETIME
            return Grant(owner.id, "", "", kind, STATIC, 0, far)
        body, _, signature = token.partition(".")
        if not hmac.compare_digest(self._sign(body.encode()).encode(), signature.encode()):
            return None
        try:
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (
            binascii.Error,
            ValueError,
        ):  # pragma: no cover - the signature vouches for the body
            return None
        if claims["typ"] != kind or claims["exp"] < time.time():
            return None
        if self._database.row("SELECT 1 FROM auth_revoked WHERE token_id = ?", (claims["jti"],)):
            return None
        return Grant(
            claims["sub"],
            claims["srv"],
            claims["scp"],
            kind,
            claims["jti"],
            claims["iat"],
            claims["exp"],
        )

    def identify(self, authorization: str | None) -> Identity | None:
        """Who sends this ``Authorization`` header; None when it holds no valid bearer token."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        held = self.read(token.strip())
        known = self._identities.get(held.subject) if held is not None else None
        return known.identity if known is not None else None

    def scopes(self, authorization: str | None) -> frozenset[str] | None:
        """The scopes of the token in this ``Authorization`` header; None for the home's own token,
        which has every scope."""
        held = self.read((authorization or "").partition(" ")[2].strip())
        if held is None or held.token_id == STATIC:
            return None
        return frozenset(held.scopes.split())

    def client(self, authorization: str | None, form: dict[str, str]) -> Identity | None:
        """Whose id and secret a request carries, in its header or its form."""
        name, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, _, secret = base64.b64decode(encoded).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            name, secret = unquote(name), unquote(secret)
        known = self._identities.with_secret(name, secret)
        return known.identity if known is not None else None

    # -- routes --------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        return [
            Route("/v2/oauth2/token", self._token, methods=["POST"]),
            Route("/v2/oauth2/token/introspect", self._introspect, methods=["POST"]),
            Route("/v2/oauth2/token/revoke", self._revoke, methods=["POST"]),
            Route("/v2/oauth2/token/validate", self._validate, methods=["POST"]),
            Route("/v2/oauth2/userinfo", self._userinfo, methods=["GET", "POST"]),
            Route("/v2/api/identities", self._identities_route, methods=["GET"]),
            Route("/v2/api/identities/{identity_id}", self._identity_route, methods=["GET"]),
            Route("/v2/api/identities/{identity_id}/consents", self._consents, methods=["GET"]),
        ]

    async def _token(self, request: Request) -> Response:
        form = await _form(request)
        grant_type = form.get("grant_type")
        if grant_type == "authorization_code":
            return self._log_in(form)
        if grant_type == "refresh_token":
            # A native application has no secret: that it holds the token is all that it can show.
            native = self.read(form.get("refresh_token", ""), NATIVE)
            if native is not None:
                scopes = split_scopes(native.scopes)
                return JSONResponse(self._grant(native.subject, scopes, NATIVE))
        client = self.client(request.headers.get("authorization"), form)
        if client is None:
            return JSONResponse({"error": "invalid_client"}, 401)
        if grant_type == "client_credentials":
            self.consents.grant(client.id, form.get("scope", ""))
            return JSONResponse(self._grant(client.id, split_scopes(form.get("scope", ""))))
        if grant_type == "refresh_token":
            held = self.read(form.get("refresh_token", ""), "refresh")
            if held is None or held.subject != client.id:
                return JSONResponse({"error": "invalid_grant"}, 400)
            return JSONResponse(self._grant(client.id, split_scopes(held.scopes)))
        return JSONResponse({"error": "unsupported_grant_type"}, 400)

    def _log_in(self, form: dict[str, str]) -> Response:
        """Exchange the code that ``cib-flows local code`` printed, once, for what the application
        asked for."""
        client_id = form.get("client_id", "")
        held = self.read(form.get("code", ""), "code")
        known = self._identities.get(held.subject) if held is not None else None
        if self._desk is None or held is None or known is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        login = self._desk.take(client_id, form.get("code_verifier", ""))
        if login is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self._revoke_grant(held)
        self.consents.grant(known.id, login.scope)
        answer = self._grant(known.id, split_scopes(login.scope), NATIVE)
        answer["id_token"] = self._desk.id_token(known.id, known.username, client_id)
        return JSONResponse(answer)

    def _grant(
        self, subject: str, scopes: list[str], refreshing: str = "refresh"
    ) -> dict[str, Any]:
        by_server: dict[str, list[str]] = defaultdict(list)
        for scope in scopes:
            by_server[resource_server(scope)].append(scope)
        if not by_server:
            by_server["auth.globus.org"] = ["openid"]
        tokens: list[dict[str, Any]] = [
            {
                "access_token": self.issue(server, held, subject=subject),
                "refresh_token": self.issue(server, held, refreshing, subject),
                "expires_in": ACCESS_LIFETIME,
                "resource_server": server,
                "scope": " ".join(held),
                "state": "_default",
                "token_type": "Bearer",
            }
            for server, held in by_server.items()
        ]
        return {**tokens[0], "other_tokens": tokens[1:]}

    async def _introspect(self, request: Request) -> Response:
        form = await _form(request)
        token = form.get("token", "")
        held = self.read(token) or self.read(token, "refresh") or self.read(token, NATIVE)
        known = self._identities.get(held.subject) if held is not None else None
        if held is None or known is None:
            return JSONResponse({"active": False})
        answer: dict[str, Any] = {
            "active": True,
            "client_id": held.subject,
            "sub": held.subject,
            "username": known.username,
            "name": _display_name(known.identity),
            "email": known.email,
            "scope": held.scopes,
            "aud": [held.server] if held.server else [],
            "iss": "https://auth.globus.org",
            "iat": held.issued,
            "nbf": held.issued,
            "exp": held.expires,
            "token_type": "Bearer",
        }
        if "identity_set" in form.get("include", ""):
            answer["identity_set"] = [held.subject]
        return JSONResponse(answer)

    async def _revoke(self, request: Request) -> Response:
        form = await _form(request)
        token = form.get("token", "")
        held = self.read(token) or self.read(token, "refresh") or self.read(token, NATIVE)
        if held is not None and held.token_id != STATIC:
            self._revoke_grant(held)
        return JSONResponse({"active": False})

    def _revoke_grant(self, held: Grant) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO auth_revoked VALUES (?, ?)", (held.token_id, held.expires)
        )

    async def _validate(self, request: Request) -> Response:
        form = await _form(request)
        return JSONResponse({"active": self.read(form.get("token", "")) is not None})

    async def _userinfo(self, request: Request) -> Response:
        identity: Identity = request.state.identity
        return JSONResponse(
            {
                "sub": identity.id,
                "preferred_username": identity.username,
                "name": _display_name(identity),
                "email": identity.email,
                "identity_provider": str(uuid.UUID(int=0)),
                "identity_set": [{"sub": identity.id, "username": identity.username}],
            }
        )

    async def _identities_route(self, request: Request) -> Response:
        wanted = ",".join(
            filter(None, (request.query_params.get("ids"), request.query_params.get("usernames")))
        ).split(",")
        found = [
            _identity_document(known.identity)
            for known in self._identities.all()
            if {known.id, known.username} & set(wanted)
        ]
        return JSONResponse({"identities": found})

    async def _identity_route(self, request: Request) -> Response:
        known = self._identities.get(request.path_params["identity_id"])
        if known is None:
            return JSONResponse(
                {"errors": [{"status": "404", "code": "NOT_FOUND", "title": "No such identity"}]},
                404,
            )
        return JSONResponse({"identity": _identity_document(known.identity)})

    async def _consents(self, request: Request) -> Response:
        identity: Identity = request.state.identity
        if request.path_params["identity_id"] != identity.id:
            return JSONResponse(
                {"errors": [{"status": "403", "code": "FORBIDDEN", "title": "Not your consents"}]},
                403,
            )
        return JSONResponse({"consents": self.consents.documents(identity.id)})


def _display_name(identity: Identity) -> str:
    return identity.username.partition("@")[0]


def _identity_document(identity: Identity) -> dict[str, Any]:
    return {
        "id": identity.id,
        "username": identity.username,
        "name": _display_name(identity),
        "email": identity.email,
        "organization": None,
        "identity_provider": str(uuid.UUID(int=0)),
        "identity_type": "login",
        "status": "used",
    }


async def _form(request: Request) -> dict[str, str]:
    """A form body, read without the multipart package that starlette's own parser wants."""
    body = await request.body()
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
