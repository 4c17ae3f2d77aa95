"""Whether a registered image is what was registered, and one that the site's policy allows.

Beside a record lie its documents and a list of everybody's sha256, in the form that ``sha256sum -c`` reads.
Where the site signs, the same list lies there under a signature too, so that whoever can change files but
has no key cannot change record or documents unnoticed. The image carries its signature within itself.
"""

from __future__ import annotations

import datetime
import fnmatch
import os
import re
from typing import Any

from .adoption import first_made
from .catalogue import Catalogue, container_of_image, utc_now
from .catalogue_index import read_object
from .files import sha256_file, write_text
from .grammars import split_image_reference
from .pgp import plain_fingerprint
from .results import StepFailed, shorten
from .signing import Signer, signed_text

# What lies beside an image, by what follows its sha256 in the name.
SBOM_ENDING = ".sbom.json"
PROVENANCE_ENDING = ".provenance.json"
SUMS_ENDING = ".sha256"
SEAL_ENDING = ".seal"
LISTED_ENDINGS = (".sif", ".json", ".lock.json", SBOM_ENDING, PROVENANCE_ENDING)
SUM_LINE = re.compile(r"([0-9a-f]{64})  ([0-9a-f]{64}(?:\.[a-z]+)+)")
REGISTER_AGAIN = "Remove the container with force and build it again, or register a sound copy."


def companion(catalogue: Catalogue, name: str, sha256: str, ending: str) -> str:
    return os.path.join(catalogue.images, name, f"{sha256}{ending}")


def put_beside(catalogue: Catalogue, name: str, sha256: str, ending: str, text: str) -> str:
    """Write a document beside an image, unless it is there already; returns the document's sha256."""
    path = companion(catalogue, name, sha256, ending)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if not os.path.exists(path):
        write_text(path, text, 0o444)
    return sha256_file(path)


def seal(catalogue: Catalogue, name: str, sha256: str, signer: Signer | None) -> None:
    """List the sha256 of all that belongs to a published image, under a signature where there is a signer."""
    lines = [f"{sha256}  {sha256}.sif\n"]
    for ending in LISTED_ENDINGS[1:]:
        path = companion(catalogue, name, sha256, ending)
        if os.path.exists(path):
            lines.append(f"{sha256_file(path)}  {sha256}{ending}\n")
    text = "".join(lines)
    write_text(companion(catalogue, name, sha256, SUMS_ENDING), text, 0o444)
    if signer:
        signed_text(signer, text, companion(catalogue, name, sha256, SEAL_ENDING))


def unseal(catalogue: Catalogue, name: str, sha256: str) -> None:
    """Forget the list of a record that is about to be made anew."""
    for ending in (SUMS_ENDING, SEAL_ENDING):
        path = companion(catalogue, name, sha256, ending)
        if os.path.lexists(path):
            os.unlink(path)


def check_trust(
    site: dict[str, Any], catalogue: Catalogue, record: dict[str, Any], *, hash_image: bool = True
) -> dict[str, Any]:
    """What can be said for a registered image: ``sealed``, ``signer`` and ``seal_signer`` (fingerprints of keys
    that the site knows, or None).

    Raises :class:`StepFailed` ``image_changed`` when a byte of image, record or document is not what it was,
    ``not_trusted`` when the site's policy does not allow the image. Without ``hash_image`` the image's own
    bytes are left to whoever hashes them.
    """
    name, sha256 = str(record["name"]), str(record["sha256"])
    text = _check_sums(catalogue, name, sha256, hash_image)
    found: dict[str, Any] = {"sealed": text is not None, "signer": None, "seal_signer": None}
    if site["verify_keys"]:
        signer = Signer(site)
        found["signer"] = signer.signer_of(catalogue.image_path(name, sha256))
        sealed = companion(catalogue, name, sha256, SEAL_ENDING)
        if os.path.exists(sealed):
            found["seal_signer"] = signer.signer_of(sealed)
            if found["seal_signer"] and signer.first_object(sealed) != (text or "").encode():
                raise _changed(f"{sha256[:12]}{SUMS_ENDING} is not the list that was signed")
        _check_claim(record, found)
    _apply_policy(site, record, found)
    return found


def _check_sums(catalogue: Catalogue, name: str, sha256: str, hash_image: bool) -> str | None:
    path = companion(catalogue, name, sha256, SUMS_ENDING)
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except FileNotFoundError:
        return None  # registered by an older version, or found again without its record
    listed: dict[str, str] = {}
    for line in text.splitlines():
        entry = SUM_LINE.fullmatch(line)
        if not entry or not entry[2].startswith(sha256):
            raise _changed(f"the list {os.path.basename(path)} is damaged")
        listed[entry[2].removeprefix(sha256)] = entry[1]
    if listed.get(".sif") != sha256 or ".json" not in listed or not text.endswith("\n"):
        raise _changed(f"the list {os.path.basename(path)} is damaged")
    for ending, expected in listed.items():
        if ending not in LISTED_ENDINGS or (ending == ".sif" and not hash_image):
            continue
        document = companion(catalogue, name, sha256, ending)
        if not os.path.exists(document):
            raise _changed(f"{os.path.basename(document)} is missing")
        if sha256_file(document) != expected:
            raise _changed(f"{os.path.basename(document)} is not what it was")
    return text


def _check_claim(record: dict[str, Any], found: dict[str, Any]) -> None:
    """A record that says who signed must be borne out, where that key is one that the site knows."""
    claimed = (record.get("signature") or {}).get("fingerprint")
    if not claimed or found["signer"] == claimed == found["seal_signer"]:
        return
    if record.get("origin"):
        # signed elsewhere; the record is sealed by this site's key, or by none
        if found["seal_signer"] and found["signer"] is None:
            raise _changed("the signature of the image does not hold")
        return
    if claimed in (found["signer"], found["seal_signer"]):
        raise _changed("the signature of the image or of its record does not hold")


def _apply_policy(site: dict[str, Any], record: dict[str, Any], found: dict[str, Any]) -> None:
    _require_allowed_signer(site, found["signer"])
    if site["require_signature"] and not (found["signer"] and found["seal_signer"]):
        what = "image" if not found["signer"] else "record"
        raise _not_trusted(
            f"The {what} of {record['name']} has no valid signature of a key that this endpoint trusts.",
            "Use an image that this site built, or ask its administrator to add the key to 'verify_keys'.",
        )
    base = base_of(record)
    if site["allowed_bases"] and not any(
        fnmatch.fnmatchcase(base, pattern) for pattern in site["allowed_bases"]
    ):
        raise _not_trusted(
            f"The image's base, {base or 'which its record does not name'}, is not one that this site allows.",
            f"Allowed are {', '.join(site['allowed_bases'][:10])}.",
        )
    limit = site["maximum_age_s"]
    if limit is not None:
        try:
            # its age counts from where it was made, however often it travelled
            made = datetime.datetime.fromisoformat(str(first_made(record)))
            age = (utc_now() - made).total_seconds()
        except (KeyError, ValueError, TypeError):
            age = float("inf")
        if age > limit:
            raise _not_trusted(
                f"The image was registered on {str(first_made(record))[:10]}, and this site allows images "
                f"of at most {limit / 86400:g} days.",
                "Build it again with 'force'.",
            )


def _require_allowed_signer(site: dict[str, Any], fingerprint: str | None) -> None:
    allowed = [plain_fingerprint(text) for text in site["allowed_signers"]]
    if None in allowed:
        wrong = site["allowed_signers"][allowed.index(None)]
        raise StepFailed(
            "site_invalid",
            f"The site's 'allowed_signers' has {shorten(wrong, 80)!r}, which is not a key's fingerprint.",
            "It has 40 hexadecimal digits for an OpenPGP key, and 64 for a PEM key.",
        )
    if allowed and fingerprint not in allowed:
        who = f"was signed by {fingerprint}" if fingerprint else "has no valid signature"
        raise _not_trusted(
            f"The image {who}, and this site allows only images of the signers that it lists.",
            "Use an image that one of them signed, or ask the administrator about 'allowed_signers'.",
        )


def base_of(record: dict[str, Any]) -> str:
    """The base as the spec names it, in full where a registry has it; empty where the record does not say."""
    base = record.get("base")
    image = str(base.get("image") or "") if isinstance(base, dict) else ""
    parts = split_image_reference(image)
    if not isinstance(base, dict) or base.get("bootstrap") not in ("docker", "oras") or not parts:
        return image
    host, path, tag, digest = parts
    return f"{host}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def require_signer(site: dict[str, Any], signer: Signer | None, image: str) -> str | None:
    """Who signed an image that comes from elsewhere. Raises :class:`StepFailed` ``not_trusted`` where the site
    requires a signature of somebody it knows.
    """
    fingerprint = signer.signer_of(image) if signer else None
    _require_allowed_signer(site, fingerprint)
    if site["require_signature"] and fingerprint is None:
        raise _not_trusted(
            "The image has no valid signature of a key that this endpoint trusts.",
            "Bring one that a trusted site signed, or ask the administrator to add the key to 'verify_keys'.",
        )
    return fingerprint


def has_policy(site: dict[str, Any]) -> bool:
    """Whether the site restricts what may be used at all."""
    return bool(
        site["require_signature"]
        or site["allowed_signers"]
        or site["allowed_bases"]
        or site["maximum_age_s"] is not None
    )


def registered(site: dict[str, Any], path: str) -> tuple[Catalogue, dict[str, Any]] | None:
    """The catalogue of the site that has the image in the file ``path``, and its record there. A record of an image
    elsewhere is none of this one: all that is checked would be that other file.
    """
    for root in (site["root"], *site["shared_roots"]):
        catalogue = Catalogue(root)
        found = container_of_image(catalogue, path)
        record = read_object(catalogue.record_path(*found)) if found else None
        if record and (record.get("name"), record.get("sha256")) == found:
            return catalogue, record
    return None


def require_allowed(site: dict[str, Any], path: str) -> None:
    """Before an image is run: raise :class:`StepFailed` as :func:`check_trust` does, and ``not_trusted`` for a
    file that is in no catalogue, where the site has a policy. Without one nothing is looked at.
    """
    if not has_policy(site):
        return
    found = registered(site, path)
    if found:
        # a valid signature covers every byte; without one the name is all that is promised
        check_trust(site, *found, hash_image=False)
        return
    raise _not_trusted(
        f"{shorten(path, 200)} is not a registered container, and this site allows no other image.",
        "Register it first with 'cib-flows containers register'.",
    )


def _changed(what: str) -> StepFailed:
    return StepFailed("image_changed", f"The container is damaged: {what}.", REGISTER_AGAIN)


def _not_trusted(sentence: str, hint: str) -> StepFailed:
    return StepFailed("not_trusted", sentence, hint)
