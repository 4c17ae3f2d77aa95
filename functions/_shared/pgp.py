"""OpenPGP keys for images: what the container engine's own keyrings and answers say.

A fingerprint is the 40 hexadecimal digits that gpg and the engine print, in lower case.
"""

from __future__ import annotations

import json
import re

PGP_PREFIX = "pgp:"
PUBLIC_BLOCK = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
PRIVATE_RING = "pgp-secret"
MAX_KEY_BYTES = 1024 * 1024
LISTED_KEY = re.compile(r"^\s*(\d+)\)|^\s*Fingerprint:\s+([0-9A-Fa-f]{40})\s*$", re.MULTILINE)
FINGERPRINT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def plain_fingerprint(text: str) -> str | None:
    """A fingerprint as it is compared, of an OpenPGP or a PEM key; None for what is none."""
    plain = text.removeprefix(PGP_PREFIX).replace(" ", "").replace(":", "").lower()
    return plain if FINGERPRINT.fullmatch(plain) else None


def holds_pgp_key(path: str) -> bool:
    """Whether a file holds an OpenPGP public key as text."""
    try:
        with open(path, "rb") as stream:
            return PUBLIC_BLOCK.encode() in stream.read(MAX_KEY_BYTES)
    except OSError:
        return False


def listed_keys(listing: str) -> dict[str, int]:
    """Fingerprint -> number, from what ``apptainer key list`` prints."""
    found: dict[str, int] = {}
    number = None
    for match in LISTED_KEY.finditer(listing):
        if match[1] is not None:
            number = int(match[1])
        elif number is not None:
            found[match[2].lower()] = number
            number = None
    return found


def sound_signers(answer: bytes) -> list[str]:
    """Fingerprints in what ``apptainer verify --json`` prints; none when one of the signatures does not hold."""
    try:
        said = json.loads(answer)
        entries = [entry["Signer"] for entry in said["SignerKeys"] or []]
        if not all(entry["KeyCheck"] is True and entry["DataCheck"] is True for entry in entries):
            return []
        return [str(entry["Fingerprint"]).lower() for entry in entries]
    except (ValueError, KeyError, TypeError):
        return []
