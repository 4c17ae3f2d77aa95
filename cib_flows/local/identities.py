"""Who may log in to a home: its own client, and the identities that were declared beside it.

An identity is a Globus Auth client: it has an id and a secret, and acts as itself. The declarations
are one JSON file in the home, so that an identity added by another process is there at once.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import re
import secrets
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cib_flows.errors import NotFoundError, UsageError
from cib_flows.local.actions import Identity
from cib_flows.local.home import Home, read_declared, write_aside

__all__ = ["Identities", "KnownIdentity"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(@[A-Za-z0-9.-]{1,190})?")


@dataclass(frozen=True)
class KnownIdentity:
    """An identity and what it logs in with: its secret for the token route, its token as a
    ready-made bearer token."""

    id: str
    username: str
    secret: str
    token: str
    email: str | None = None

    @property
    def identity(self) -> Identity:
        return Identity(self.id, self.username, self.email)

    def environment(self) -> dict[str, str]:
        """What makes the Globus clients act as this identity."""
        found = {}
        for prefix in ("GLOBUS_CLI", "GLOBUS_COMPUTE", "CIB_FLOWS"):
            found[f"{prefix}_CLIENT_ID"] = self.id
            found[f"{prefix}_CLIENT_SECRET"] = self.secret
        return found


class Identities:
    def __init__(self, own: KnownIdentity, declarations: Path) -> None:
        self.own = own
        self._declarations = declarations
        self._read: tuple[tuple[int, int], list[KnownIdentity]] | None = None

    @classmethod
    def of_home(cls, home: Home) -> Identities:
        client = home.client()
        own = KnownIdentity(
            id=client.client_id,
            username=f"{client.client_id}@clients.auth.globus.org",
            secret=client.client_secret,
            token=home.token(),
        )
        return cls(own, home.path / "identities.json")

    def all(self) -> list[KnownIdentity]:
        return [self.own, *self._declared()]

    def get(self, identity_id: str) -> KnownIdentity | None:
        return next((known for known in self.all() if known.id == identity_id), None)

    def named(self, name: str) -> KnownIdentity:
        """The identity with this name or id. Raises :class:`NotFoundError`."""
        for known in self.all():
            if name in (known.id, known.username):
                return known
        raise NotFoundError(
            f"There is no identity {name!r} in this local Globus; "
            f"add it with 'cib-flows local identity add {name}'."
        )

    def with_token(self, token: str) -> KnownIdentity | None:
        """Whose ready-made token this is."""
        if not token:
            return None
        given = token.encode()
        matching = [
            known for known in self.all() if hmac.compare_digest(known.token.encode(), given)
        ]
        return matching[0] if matching else None

    def with_secret(self, client_id: str, secret: str) -> KnownIdentity | None:
        known = self.get(client_id)
        if known is None or not hmac.compare_digest(known.secret.encode(), secret.encode()):
            return None
        return known

    def add(self, name: str) -> KnownIdentity:
        """Declare an identity; the same name again is the same identity. Raises
        :class:`UsageError` for something that is no name."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"The identity's name {name!r} must be a user name such as alice or alice@example.org."
            )
        lock = os.open(
            self._declarations.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for known in self.all():
                if known.username == name:
                    return known
            added = KnownIdentity(
                id=str(uuid.uuid4()),
                username=name,
                secret=secrets.token_urlsafe(32),
                token=secrets.token_urlsafe(32),
                email=name if "@" in name else None,
            )
            entries: list[dict[str, Any]] = [asdict(item) for item in [*self._declared(), added]]
            write_aside(self._declarations, json.dumps(entries, indent=2) + "\n", 0o600)
        finally:
            os.close(lock)
        return added

    def _declared(self) -> list[KnownIdentity]:
        # Asked at every request: the file is read again only when it was replaced.
        try:
            found = os.stat(self._declarations)
        except FileNotFoundError:
            return []
        mark = (found.st_mtime_ns, found.st_ino)
        if self._read is None or self._read[0] != mark:
            self._read = (mark, read_declared(self._declarations, KnownIdentity))
        return self._read[1]
