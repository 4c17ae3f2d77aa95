"""The ``cib-flows`` command. Commands only parse and call; what they call is in the package."""

from __future__ import annotations

from cib_flows.cli.root import main

__all__ = ["main"]
