"""Logging in as a person: the authorization-code flow of native applications (``UserApp``).

A browser cannot show who sits in front of it, and other users of the machine reach loopback too. So
the authorization page gives nothing away: it tells to run ``cib-flows local code``, which only who
can read the home can, and whose code the application then exchanges for tokens.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cib_flows.local.home import write_aside

__all__ = ["OPEN_PATHS", "Login", "LoginDesk"]

OPEN_PATHS = {
    "/v2/oauth2/authorize",
    "/.well-known/openid-configuration",
    "/jwk.json",
}
ISSUER = "https://auth.globus.org"
MAX_PENDING = 100
LIFETIME_S = 600.0

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Log in to the local Globus</title>
<body><h1>Log in to the local Globus</h1>
<p>In a terminal, run this and give its code to the application:</p>
<pre>cib-flows local code --home {home}</pre>
<p>The application asks for:</p><ul>{scopes}</ul></body></html>
"""


@dataclass(frozen=True)
class Login:
    """What an application asked for at the authorization page."""

    client_id: str
    scope: str
    begun: float


class LoginDesk:
    """Keeps what applications asked for until they come with a code, and signs who they are told
    the user is."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._key_path = home / "login-key.pem"
        self._pending: OrderedDict[str, Login] = OrderedDict()

    def routes(self) -> list[Route]:
        return [
            Route("/v2/oauth2/authorize", self._authorize, methods=["GET"]),
            Route("/.well-known/openid-configuration", self._configuration, methods=["GET"]),
            Route("/jwk.json", self._jwk, methods=["GET"]),
        ]

    def take(self, client_id: str, verifier: str) -> Login | None:
        """What the application that holds this PKCE verifier asked for; once."""
        digest = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        login = self._pending.pop(challenge, None)
        if login is None or not secrets.compare_digest(login.client_id, client_id):
            return None
        return login if time.time() - login.begun < LIFETIME_S else None

    def id_token(self, subject: str, username: str, client_id: str) -> str:
        """An OpenID Connect token that the SDK can verify."""
        # Only logins need these; both take longer to import than the server may take to start.
        import jwt

        now = int(time.time())
        claims: dict[str, Any] = {
            "sub": subject,
            "preferred_username": username,
            "aud": client_id,
            "iss": ISSUER,
            "iat": now,
            "exp": now + 172_800,
            "identity_set": [{"sub": subject, "username": username}],
        }
        return jwt.encode(claims, self._key(), algorithm="RS512")

    def _key(self) -> Any:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        if not self._key_path.exists():
            made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = made.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            write_aside(self._key_path, pem.decode(), 0o600)
        return serialization.load_pem_private_key(self._key_path.read_bytes(), password=None)

    # -- routes --------------------------------------------------------------------------------

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        challenge, client_id = query.get("code_challenge", ""), query.get("client_id", "")
        if (
            query.get("response_type") != "code"
            or query.get("code_challenge_method") != "S256"
            or not re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge)
            or not re.fullmatch(r"[0-9a-fA-F-]{36}", client_id)
        ):
            return HTMLResponse("This is not the request of a native application.", 400)
        self._pending[challenge] = Login(client_id, query.get("scope", ""), time.time())
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        scopes = "".join(
            f"<li>{html.escape(scope)}</li>" for scope in query.get("scope", "").split()
        )
        return HTMLResponse(PAGE.format(home=html.escape(str(self._home)), scopes=scopes))

    async def _configuration(self, request: Request) -> Response:
        base = str(request.base_url)
        return JSONResponse(
            {
                "issuer": ISSUER,
                "authorization_endpoint": f"{base}v2/oauth2/authorize",
                "token_endpoint": f"{base}v2/oauth2/token",
                "userinfo_endpoint": f"{base}v2/oauth2/userinfo",
                "revocation_endpoint": f"{base}v2/oauth2/token/revoke",
                "jwks_uri": f"{base}jwk.json",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS512"],
                "scopes_supported": ["openid", "email", "profile"],
            }
        )

    async def _jwk(self, _: Request) -> Response:
        from jwt.algorithms import RSAAlgorithm

        public = RSAAlgorithm.to_jwk(self._key().public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public, "alg": "RS512", "use": "sig"}]})
