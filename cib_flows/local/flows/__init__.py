"""The Flows service of the embedded Globus: definitions, runs, and the interpreter that moves
them."""

from __future__ import annotations

from .service import FlowsService

__all__ = ["FlowsService"]
