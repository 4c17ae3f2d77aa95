"""Tokens of other people, brought with a run's input for the actions that run as them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from cib_flows.local.actions import Identity
from cib_flows.local.database import Database

from .errors import StateError, unprocessable

__all__ = ["TOKENS", "Identify", "RoleTokens"]

# The key of the run's input that holds them, by role.
TOKENS = "_tokens"

SCHEMA = "CREATE TABLE IF NOT EXISTS run_tokens (run_id TEXT PRIMARY KEY, tokens TEXT NOT NULL)"

Identify = Callable[[str], "Identity | None"]


class RoleTokens:
    """Kept apart from the run's document, so that no state can read them, for as long as the run
    lasts.

    :param identify: whose token it is; None for one that is not valid
    """

    def __init__(self, database: Database, identify: Identify) -> None:
        self._database = database
        self._identify = identify
        database.create(SCHEMA)

    def take(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """A run's input without its tokens, and the tokens.

        :raises Refusal: 422 when they are no object of texts
        """
        tokens = body.get(TOKENS, {})
        if not isinstance(tokens, dict) or not all(isinstance(t, str) for t in tokens.values()):
            message = "an object of tokens by role is expected"
            raise unprocessable(
                [{"loc": ["body", TOKENS], "msg": message, "type": "type_error.dict"}]
            )
        return {key: value for key, value in body.items() if key != TOKENS}, tokens

    def keep(self, run_id: str, tokens: Mapping[str, str]) -> None:
        if tokens:
            self._database.execute(
                "INSERT INTO run_tokens VALUES (?, ?)", (run_id, json.dumps(tokens))
            )

    def forget_ended(self) -> None:
        """Remove the tokens of runs that have ended."""
        self._database.execute(
            "DELETE FROM run_tokens WHERE run_id NOT IN"
            " (SELECT run_id FROM runs WHERE status IN ('ACTIVE', 'INACTIVE'))"
        )

    def identity(self, run_id: str, role: str) -> Identity:
        """Who acts in ``role``.

        :raises StateError: ``NoTokenException`` when the run brought no valid token for it
        """
        row = self._database.row("SELECT tokens FROM run_tokens WHERE run_id = ?", (run_id,))
        token = json.loads(row["tokens"]).get(role) if row is not None else None
        if token is None:
            raise StateError(
                "NoTokenException",
                f"The run's input has no token for the role {role!r} in its '{TOKENS}'.",
            )
        identity = self._identify(token)
        if identity is None:
            raise StateError(
                "NoTokenException", f"The token for the role {role!r} is expired or invalid."
            )
        return identity
