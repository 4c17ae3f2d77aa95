"""The two digests: what was asked for, and everything an image's content follows from."""

from __future__ import annotations

from typing import Any

from .files import canonical_json, sha256_text


def spec_digest(spec: dict[str, Any]) -> str:
    """Digest of a checked spec, whatever the order or defaults it was written with."""
    asked = {k: v for k, v in spec.items() if k not in ("force", "build_endpoint", "run_endpoint")}
    return sha256_text(canonical_json(asked))


def build_digest(plan: dict[str, Any]) -> str:
    """The key under which a build is found again: recipe, payload, base, engine and machine."""
    return sha256_text(
        canonical_json(
            {
                "recipe": plan["recipe_sha256"],
                "payload": plan["payload_digest"],
                "base": plan["base"]["digest"],
                "engine": plan["engine"],
                "machine": plan["machine"],
            }
        )
    )
