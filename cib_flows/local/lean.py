"""Imported first by the server, before anything that imports ``jsonschema``."""

from __future__ import annotations

from cib_flows.quick_start import load_jsonschema

load_jsonschema()
