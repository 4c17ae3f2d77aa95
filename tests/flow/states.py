"""States and definitions that the tests of this folder are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPUTE = "https://compute.actions.globus.org/v3"
TRANSFER = "https://transfer.actions.globus.org/transfer"
ENDPOINT = "7a2b8f0e-0000-4000-8000-000000000001"


def action(url: str = COMPUTE, **fields: Any) -> dict[str, Any]:
    """An Action state that says everything which the service leaves open, and catches."""
    return {
        "Type": "Action",
        "ActionUrl": url,
        "Parameters": {},
        "ResultPath": "$.result",
        "WaitTime": 600,
        "ExceptionOnActionFailure": True,
        **({} if "Next" in fields else {"End": True}),
        **fields,
    }


def one_state(state: Mapping[str, Any], **others: Mapping[str, Any]) -> dict[str, Any]:
    """A definition that begins with ``state``, called Only."""
    return {
        "StartAt": "Only",
        "States": {"Only": dict(state), **{name: dict(s) for name, s in others.items()}},
    }
