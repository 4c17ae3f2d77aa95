"""Documents and signatures in SIF files, by the container engine's own commands.

Keys are PEM files, or OpenPGP keys. The fingerprint of a PEM key is the sha256 of its public half in DER form,
as ``openssl pkey -pubin -outform DER | sha256sum`` prints it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from typing import Any

from .files import write_text
from .modules import load_modules
from .pgp import (
    PGP_PREFIX,
    PRIVATE_RING,
    holds_pgp_key,
    listed_keys,
    plain_fingerprint,
    sound_signers,
)
from .processes import clean_environment
from .results import StepFailed, last_bytes, shorten
from .run_versions import engine_version, find_apptainer
from .singularity import engine_environment

SIGNING_TIMEOUT_S = 3600  # hashing a large image from a slow disk
PEM_BODY = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----")
DEFAULT_KEYRING = "~/.apptainer/keys"
CANNOT_SIGN = "The image cannot be signed with the site's key"
SBOM_OPTIONS = ("--datatype", "9", "--sbomformat", "cyclonedx-json")
JSON_OPTIONS = ("--datatype", "6")
ASK_ADMINISTRATOR = (
    "Ask the endpoint's administrator to mend 'sign_key' and 'verify_keys' in the site profile."
)


class Signer:
    """The engine's commands for what lies in a SIF, with the keys of one site."""

    def __init__(self, site: dict[str, Any]) -> None:
        load_modules(site)
        found = find_apptainer()
        if not found:
            raise StepFailed(
                "apptainer_missing",
                "Images are signed or their signatures checked on this endpoint, and the node that should has "
                "neither apptainer nor singularity.",
                "Ask the endpoint's administrator to have its module loaded in the 'control' profile too.",
            )
        self.engine = found
        self.site = site
        self.environment = clean_environment(site)

    def add(self, image: str, document: str, kind: tuple[str, ...]) -> None:
        """Put a file into the group that a signature covers."""
        # objects of the default group would make every later verification fail
        words = ["sif", "add", *kind, "--groupid", "1", "--filename", os.path.basename(document)]
        self._must([*words, image, document], "A document cannot be added to the image")

    def make_empty(self, path: str) -> None:
        self._must(["sif", "new", path], "An empty SIF cannot be made")

    def first_object(self, path: str) -> bytes:
        """What the first object of a SIF holds; empty where there is none."""
        done = self._run(["sif", "dump", "1", path])
        return done.stdout if done.returncode == 0 else b""

    def sign(self, image: str) -> str:
        """Sign with the site's key, and return the fingerprint of the key by which that was checked at once.

        Raises :class:`StepFailed` ``site_invalid`` for a key that others can read, that does not work, or
        whose public half is not among ``verify_keys``.
        """
        given = str(self.site["sign_key"])
        if given.startswith(PGP_PREFIX):
            self._sign_with_pgp(image, given)
        else:
            key = os.path.expanduser(given)
            _require_private(key, "signing key")
            self._must(["sign", "--key", key, image], CANNOT_SIGN)
        fingerprint = self.signer_of(image)
        if fingerprint is None:
            raise StepFailed(
                "site_invalid",
                "The image was signed, and none of the site's 'verify_keys' confirms the signature.",
                ASK_ADMINISTRATOR,
            )
        return fingerprint

    def _sign_with_pgp(self, image: str, given: str) -> None:
        fingerprint = plain_fingerprint(given)
        keyring = os.path.expanduser(self.site["keyring"] or DEFAULT_KEYRING)
        _require_private(os.path.join(keyring, PRIVATE_RING), "secret keyring")
        listing = self._run(["key", "list", "--secret"], keyring=keyring)
        number = listed_keys(listing.stdout.decode("utf-8", "replace")).get(fingerprint or "")
        if number is None:
            raise StepFailed(
                "site_invalid",
                f"The keyring {keyring} has no secret key {shorten(given, 60)}, which 'sign_key' names.",
                "'apptainer key list --secret' shows the fingerprints of those that it has.",
            )
        phrase = b""
        if self.site["sign_passphrase_file"]:
            path = os.path.expanduser(self.site["sign_passphrase_file"])
            _require_private(path, "passphrase file")
            with open(path, "rb") as stream:
                phrase = stream.readline().rstrip(b"\r\n")
        # the passphrase goes through a pipe: what stands in arguments or variables, others may see
        words = ["sign", "--keyidx", str(number), image]
        self._must(words, CANNOT_SIGN, keyring=keyring, told=phrase + b"\n")

    def signer_of(self, image: str) -> str | None:
        """Fingerprint of the first of the site's ``verify_keys`` whose signature covers the whole image."""
        keys = [os.path.expanduser(path) for path in self.site["verify_keys"]]
        pgp_keys = [key for key in keys if holds_pgp_key(key)]
        for key in keys:
            if key in pgp_keys:
                continue
            fingerprint = key_fingerprint(key)
            # with a PEM key the exit status is the answer; the JSON names no signer
            if self._run(["verify", "--key", key, image]).returncode == 0:
                return fingerprint
        return self._pgp_signer_of(image, pgp_keys) if pgp_keys else None

    def _pgp_signer_of(self, image: str, keys: list[str]) -> str | None:
        # a keyring of its own: the account's may hold keys that the site does not trust
        with tempfile.TemporaryDirectory(prefix="cib-keys-") as keyring:
            for key in keys:
                self._must(["key", "import", key], f"The key {key} cannot be used", keyring=keyring)
            listing = self._run(["key", "list"], keyring=keyring)
            trusted = listed_keys(listing.stdout.decode("utf-8", "replace"))
            done = self._run(["verify", "--local", "--json", image], keyring=keyring)
        signers = sound_signers(done.stdout) if done.returncode == 0 else []
        # the machine's own keyring counts for the engine, and not for the site
        is_sound = bool(signers) and all(signer in trusted for signer in signers)
        return signers[0] if is_sound else None

    def _must(
        self, words: list[str], what: str, *, keyring: str | None = None, told: bytes = b""
    ) -> None:
        done = self._run(words, keyring=keyring, told=told)
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace")
            fatal = next((line for line in said.splitlines() if "FATAL" in line), said)
            raise StepFailed(
                "site_invalid",
                f"{what}: {shorten(fatal.split('FATAL:')[-1], 200)}",
                ASK_ADMINISTRATOR,
                log_tail=last_bytes(said, 1000),
            )

    def _run(
        self, words: list[str], *, keyring: str | None = None, told: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        environment = self.environment
        if keyring:
            own = {**environment, "APPTAINER_KEYSDIR": keyring}
            environment = engine_environment(engine_version(), own)
        try:
            return subprocess.run(
                [self.engine, *words],
                input=told,
                capture_output=True,
                env=environment,
                timeout=SIGNING_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepFailed(
                "time_limit", f"'{words[0]}' of an image took longer than {SIGNING_TIMEOUT_S} s."
            ) from None


def signature_of(fingerprint: str | None) -> dict[str, str] | None:
    """What a record says of the image's signature."""
    if not fingerprint:
        return None
    return {"kind": "pgp" if len(fingerprint) == 40 else "pem", "fingerprint": fingerprint}


def _require_private(path: str, what: str) -> None:
    """Raise unless only its owner can read a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise StepFailed(
            "site_invalid",
            f"The site's {what} {path} cannot be used: {error.strerror}.",
            ASK_ADMINISTRATOR,
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise StepFailed(
            "site_invalid",
            f"The site's {what} {path} can be read by others than its owner.",
            f"Its owner corrects that with: chmod 600 {path}",
        )


def key_fingerprint(path: str) -> str:
    """sha256 of a public key. Raises :class:`StepFailed` ``site_invalid`` when the file holds none."""
    try:
        with open(path, encoding="ascii") as stream:
            found = PEM_BODY.search(stream.read())
        if found:
            return hashlib.sha256(base64.b64decode(found[1])).hexdigest()
    except (OSError, UnicodeDecodeError, binascii.Error):
        pass
    raise StepFailed(
        "site_invalid",
        f"The site's 'verify_keys' names {shorten(path, 200)}, which is no public key in PEM form, nor an "
        "OpenPGP key as text.",
        ASK_ADMINISTRATOR,
    )


def signed_copy(signer: Signer, image: str, sbom: str, provenance: str) -> tuple[str, str]:
    """``(path, key fingerprint)`` of a copy of ``image`` that holds both documents and a signature over all.

    A copy, since a build that is kept for later ones is a second name of the same file.
    """
    copy = f"{image}.signed"
    if os.path.lexists(copy):
        os.unlink(copy)
    shutil.copyfile(image, copy)
    os.chmod(copy, 0o700)
    signer.add(copy, sbom, SBOM_OPTIONS)
    signer.add(copy, provenance, JSON_OPTIONS)
    return copy, signer.sign(copy)


def signed_text(signer: Signer, text: str, path: str) -> None:
    """Write ``text`` under a signature: a SIF file that holds nothing else."""
    plain, made = f"{path}.text", f"{path}.new"
    try:
        write_text(plain, text)
        signer.make_empty(made)
        signer.add(made, plain, JSON_OPTIONS)
        signer.sign(made)
        os.chmod(made, 0o444)
        os.replace(made, path)
    finally:
        for left in (plain, made):
            if os.path.lexists(left):
                os.unlink(left)
