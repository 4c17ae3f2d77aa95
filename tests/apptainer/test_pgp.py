"""Images signed with an OpenPGP key of Apptainer's own keyring, and sites that name whose signatures count."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.documents import validate_sbom

from .conftest import PLAIN, LocalGlobus
from .test_trust import beside, dumped, make_key, refusal

PHRASE = "beam-stop 42"


@dataclass
class Keyring:
    """An Apptainer keyring with one key whose secret half needs ``PHRASE``."""

    folder: Path
    public: Path
    phrase_file: Path
    fingerprint: str


def make_keyring(folder: Path, name: str) -> Keyring:
    ring = folder / name
    ring.mkdir(mode=0o700)
    environment = {**os.environ, "APPTAINER_KEYSDIR": str(ring)}

    def key(*words: str) -> str:
        done = subprocess.run(
            ["apptainer", "key", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    # a second key before it: the one that is meant is found by its fingerprint, not by its place
    key("newpair", "-N", "other", "-E", "o@example.org", "-C", "", "-P", "", "--push=false")
    key("newpair", "-N", name, "-E", "s@example.org", "-C", "", "-P", PHRASE, "--push=false")
    lines = [line.split() for line in key("list").splitlines()]
    fingerprint = [words[1] for words in lines if words and words[0] == "Fingerprint:"][-1]
    armored = folder / f"{name}.asc"
    export = ("--keyring", str(ring / "pgp-public"), "--armor", "--export", fingerprint)
    exported = subprocess.run(
        ["gpg", "--homedir", str(ring), "--batch", "--no-default-keyring", *export],
        capture_output=True,
        text=True,
        check=True,
    )
    armored.write_text(exported.stdout)
    phrase = folder / f"{name}.phrase"
    phrase.write_text(f"{PHRASE}\n")
    phrase.chmod(0o600)
    return Keyring(ring, armored, phrase, fingerprint)


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    if not shutil.which("gpg"):
        pytest.skip("gpg, which writes the public key as text, is not installed")
    return make_keyring(tmp_path_factory.mktemp("pgp"), "site")


@pytest.fixture(scope="module")
def site(start_globus: Callable[..., LocalGlobus], keyring: Keyring) -> LocalGlobus:
    return start_globus(
        sign_key=f"pgp:{keyring.fingerprint}",
        keyring=str(keyring.folder),
        sign_passphrase_file=str(keyring.phrase_file),
        verify_keys=[str(keyring.public)],
        require_signature=True,
        # as gpg prints it
        allowed_signers=[" ".join(keyring.fingerprint[n : n + 4] for n in range(0, 40, 4))],
    )


@pytest.fixture(scope="module")
def made(site: LocalGlobus) -> dict[str, Any]:
    return site.built({**PLAIN, "name": "signed"})


def checked(site: LocalGlobus) -> dict[str, Any]:
    answer = site.cli("containers", "verify", "signed", "--only-trust", "--json")
    assert answer.code == 0, answer.output
    trust: dict[str, Any] = answer.document["trust"]
    return trust


def refused(site: LocalGlobus) -> dict[str, Any]:
    return refusal(site.cli("containers", "verify", "signed", "--only-trust", "--json"))


def test_image_and_record_are_signed_by_the_key_that_was_named(
    site: LocalGlobus, made: dict[str, Any], keyring: Keyring
) -> None:
    record = json.loads(beside(made, ".json").read_text())
    fingerprint = keyring.fingerprint.lower()
    assert record["signature"] == {"kind": "pgp", "fingerprint": fingerprint}
    trust = checked(site)
    assert trust == {"sealed": True, "signer": fingerprint, "seal_signer": fingerprint}
    validate_sbom(json.dumps(dumped(made["path"], "SBOM (cyclonedx-json)")))
    # anybody can say so with Apptainer alone
    done = subprocess.run(
        ["apptainer", "verify", "--local", made["path"]],
        env={**os.environ, "APPTAINER_KEYSDIR": str(keyring.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert keyring.fingerprint.upper() in (done.stdout + done.stderr).upper()


def test_the_passphrase_is_written_nowhere(site: LocalGlobus, made: dict[str, Any]) -> None:
    for path in site.home.rglob("*"):
        if path.is_file() and path.suffix != ".sif":
            assert PHRASE.encode() not in path.read_bytes(), path


def test_one_byte_of_the_seal_is_noticed(site: LocalGlobus, made: dict[str, Any]) -> None:
    seal = beside(made, ".seal")
    whole = seal.read_bytes()
    place = whole.index(b".json")
    try:
        seal.chmod(0o644)
        seal.write_bytes(whole[:place] + b"-" + whole[place + 1 :])
        assert refused(site)["code"] in ("image_changed", "not_trusted")
    finally:
        seal.write_bytes(whole)
        seal.chmod(0o444)
    assert checked(site)["sealed"] is True


def test_a_key_that_is_trusted_but_not_listed_is_refused(
    site: LocalGlobus, made: dict[str, Any], profile: Callable[..., None]
) -> None:
    profile(allowed_signers=["0" * 40])
    error = refused(site)
    assert error["code"] == "not_trusted"
    assert "only images of the signers that it lists" in error["message"]
    ran = site.cli("containers", "exec", "signed", "--", "true")
    assert ran.code == 1
    assert "signers that it lists" in ran.output + ran.errors
    profile(allowed_signers=["somebody"])
    assert refused(site)["code"] == "site_invalid"


def test_another_key_of_the_machines_keyring_is_not_the_sites(
    site: LocalGlobus,
    made: dict[str, Any],
    keyring: Keyring,
    tmp_path: Path,
    profile: Callable[..., None],
) -> None:
    stranger = make_keyring(tmp_path, "stranger")
    profile(verify_keys=[str(stranger.public)], allowed_signers=[])
    assert refused(site)["code"] == "not_trusted"
    # keys of both kinds may be named together
    pem = make_key(tmp_path, "pem")[1]
    profile(verify_keys=[pem, str(stranger.public), str(keyring.public)])
    assert checked(site)["signer"] == keyring.fingerprint.lower()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sign_passphrase_file": None}, "cannot be signed with the site's key"),
        ({"sign_key": f"pgp:{'0' * 40}"}, "has no secret key pgp:000000"),
        ({"sign_key": "pgp:site"}, "has no secret key pgp:site"),
        ({"keyring": "/nowhere"}, "secret keyring /nowhere/pgp-secret cannot be used"),
    ],
)
def test_what_cannot_sign_is_said_and_nothing_is_registered(
    site: LocalGlobus, profile: Callable[..., None], fields: dict[str, Any], said: str
) -> None:
    profile(**fields)
    answer = site.build({**PLAIN, "name": "unsigned"})
    assert answer.code == 1
    assert said in answer.document["failure"]["sentence"]
    assert not list((site.root / "images").glob("unsigned/*.sif"))
