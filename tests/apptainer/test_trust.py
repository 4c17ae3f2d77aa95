"""Images that a site signs: what stands in them, what is noticed, and what the site's policy refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.bundle import bundle_function
from tests.documents import validate_provenance, validate_sbom

from .conftest import PLAIN, Answer, LocalGlobus


def make_key(folder: Path, name: str) -> tuple[str, str]:
    """A private key and its public half."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)], check=True
    )
    private.chmod(0o600)
    subprocess.run(
        ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)], check=True
    )
    return str(private), str(public)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes keys, is not installed")
    return make_key(tmp_path_factory.mktemp("keys"), "site")


@pytest.fixture(scope="module")
def site(start_globus: Callable[..., LocalGlobus], keys: tuple[str, str]) -> LocalGlobus:
    return start_globus(sign_key=keys[0], verify_keys=[keys[1]], require_signature=True)


@pytest.fixture(scope="module")
def made(site: LocalGlobus) -> dict[str, Any]:
    spec = {**PLAIN, "name": "signed", "pip": ["jinja2"], "verify": {"imports": []}}
    return site.built(spec)


# 'containers reindex' leaves images alone that are minutes old; the function may be told not to.
REINDEX = (
    "from cib_flows.functions.reindex_containers import reindex_containers; "
    "print(reindex_containers(min_age_s=0))"
)


def beside(made: dict[str, Any], ending: str) -> Path:
    return Path(made["path"]).with_suffix(ending)


def checked(site: LocalGlobus, *options: str) -> Answer:
    return site.cli("containers", "verify", "signed", "--json", *options)


def refusal(answer: Answer) -> dict[str, Any]:
    assert answer.code == 1, answer.output
    error: dict[str, Any] = json.loads(answer.output)["error"]
    return error


def dumped(image: str, kind: str) -> Any:
    """The object of a SIF whose line in ``sif list`` ends with ``kind``, read as JSON."""
    listing = subprocess.run(
        ["apptainer", "sif", "list", image], capture_output=True, text=True, check=True
    ).stdout
    line = [line for line in listing.splitlines() if line.rstrip().endswith(kind)][-1]
    number = line.split("|")[0].strip()
    return json.loads(
        subprocess.run(
            ["apptainer", "sif", "dump", number, image], capture_output=True, check=True
        ).stdout
    )


def test_documents_stand_in_the_image_under_the_signature_and_beside_it(
    site: LocalGlobus, made: dict[str, Any], keys: tuple[str, str]
) -> None:
    done = subprocess.run(["apptainer", "verify", "--key", keys[1], made["path"]], check=False)
    assert done.returncode == 0
    sbom = dumped(made["path"], "SBOM (cyclonedx-json)")
    provenance = dumped(made["path"], "JSON.Generic")
    assert sbom == json.loads(beside(made, ".sbom.json").read_text())
    assert provenance == json.loads(beside(made, ".provenance.json").read_text())
    validate_sbom(beside(made, ".sbom.json").read_text())
    validate_provenance(provenance)
    materials = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    functions = [m for m in materials if m["name"].startswith("function:")]
    assert {m["name"].removeprefix("function:"): m["digest"]["sha256"] for m in functions} == {
        step: bundle_function(step).sha256
        for step in ("render_recipe", "build_image", "verify_image", "register_container")
    }
    assert all(m["uri"].startswith("urn:globus:compute:function:") for m in functions)
    who = provenance["predicate"]["buildDefinition"]["internalParameters"]["started_by"]
    assert who.startswith("urn:globus:auth:identity:")
    record = json.loads(beside(made, ".json").read_text())
    squashfs = record["verification"]["squashfs_sha256"]
    assert provenance["subject"][0]["digest"] == {"sha256": squashfs}
    assert sbom["metadata"]["component"]["hashes"][0]["content"] == squashfs
    purls = [component["purl"].split("@")[0] for component in sbom["components"]]
    assert "pkg:pypi/jinja2" in purls
    assert "pkg:deb/debian/ca-certificates" in purls
    base = provenance["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert f"sha256:{base['digest']['sha256']}" == record["base"]["digest"]
    assert "jinja" in site.inside(made, "/opt/cib/venv/bin/python", "-c", "print('jinja')")


def test_everything_is_listed_for_sha256sum(made: dict[str, Any]) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", beside(made, ".sha256").name],
        cwd=Path(made["path"]).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(": OK") == 5


def test_a_sound_container_is_verified_and_its_signer_named(
    site: LocalGlobus, made: dict[str, Any]
) -> None:
    record = json.loads(beside(made, ".json").read_text())
    for options in ([], ["--only-trust"]):
        answer = checked(site, *options)
        assert answer.code == 0, answer.output
        trust = answer.document["trust"]
        assert trust["sealed"] is True
        assert trust["signer"] == trust["seal_signer"] == record["signature"]["fingerprint"]


@pytest.mark.parametrize(
    "ending", [".sif", ".json", ".sbom.json", ".provenance.json", ".lock.json", ".sha256", ".seal"]
)
def test_one_byte_is_noticed(site: LocalGlobus, made: dict[str, Any], ending: str) -> None:
    path = beside(made, ending)
    whole = path.read_bytes()
    # in a digest, so that JSON stays JSON
    found = re.search(rb"[0-9a-f]{64}", whole)
    position = found.start() + 5 if found and ending != ".sif" else len(whole) // 2
    try:
        path.chmod(0o644)
        with path.open("r+b") as stream:
            stream.seek(position)
            stream.write(bytes([whole[position] ^ 1]))
        error = refusal(checked(site, "--only-trust"))
        assert error["code"] in ("image_changed", "not_trusted"), error
    finally:
        path.write_bytes(whole)
        path.chmod(0o444)
    assert checked(site, "--only-trust").code == 0


def test_a_byte_and_its_sum_together_are_noticed_by_the_seal(
    site: LocalGlobus, made: dict[str, Any]
) -> None:
    """Whoever may write files but has no key can make the list fit a changed record, but not sign it."""
    record, sums = beside(made, ".json"), beside(made, ".sha256")
    whole, listed = record.read_bytes(), sums.read_text()
    try:
        for path in (record, sums):
            path.chmod(0o644)
        record.write_bytes(whole.replace(b'"account": "', b'"account": "x'))
        done = subprocess.run(
            ["sha256sum", str(record)], capture_output=True, text=True, check=True
        )
        old = next(line for line in listed.splitlines() if line.endswith(f"  {record.name}"))
        sums.write_text(listed.replace(old.split()[0], done.stdout.split()[0]))
        error = refusal(checked(site, "--only-trust"))
        assert error["code"] == "image_changed"
        assert "not the list that was signed" in error["message"]
    finally:
        record.write_bytes(whole)
        sums.write_text(listed)


def test_a_lost_record_is_made_anew_from_what_is_signed_in_the_image(
    site: LocalGlobus, made: dict[str, Any], profile: Callable[..., None]
) -> None:
    record_path = beside(made, ".json")
    before = json.loads(record_path.read_text())
    documents = {
        ending: beside(made, ending).read_text() for ending in (".sbom.json", ".provenance.json")
    }
    for ending in (".json", ".sha256", ".seal", *documents):
        beside(made, ending).unlink()
    reindex(site, made["path"])
    record = json.loads(record_path.read_text())
    assert record["recovered_at"]
    for key in ("spec_digest", "base", "worker", "machine", "engine", "account", "started_by"):
        assert record[key] == before[key], key
    assert record["spec"]["name"] == "signed"
    assert record["signature"] == before["signature"]
    assert record["executor"]["endpoint_id"] == before["executor"]["endpoint_id"]
    # its age did not begin anew
    assert record["created_at"] == before["verification"]["verified_at"]
    for ending, text in documents.items():
        assert beside(made, ending).read_text() == text
    # the policy holds as before
    profile(allowed_bases=["docker.io/library/python:*"], maximum_age_s=86400)
    trust = checked(site, "--only-trust").document["trust"]
    assert trust["signer"] == trust["seal_signer"] == before["signature"]["fingerprint"]
    assert checked(site).code == 0
    ran = site.cli("containers", "exec", "signed", "--json", "--", "echo", "hello")
    assert ran.document["stdout"] == "hello\n"
    profile(allowed_bases=["nothing"])
    assert refusal(checked(site, "--only-trust"))["code"] == "not_trusted"


def reindex(site: LocalGlobus, recovers: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REINDEX],
        env={**os.environ, "CIB_FLOWS_SITE": str(site.home / "site.json")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert recovers in done.stdout, done.stdout + done.stderr


def test_an_image_under_another_name_is_not_vouched_for(
    site: LocalGlobus, made: dict[str, Any]
) -> None:
    """Whoever may write files could give a signed image a name that others trust."""
    folder = site.root / "images" / "production"
    folder.mkdir()
    copy = folder / Path(made["path"]).name
    shutil.copyfile(made["path"], copy)
    try:
        reindex(site, str(copy))
        assert not copy.with_suffix(".seal").exists()
        answer = site.cli("containers", "verify", "production", "--only-trust", "--json")
        assert refusal(answer)["code"] == "not_trusted"
    finally:
        site.cli("containers", "remove", "production:latest", "--force")
        shutil.rmtree(folder)


def test_another_key_is_not_trusted(
    site: LocalGlobus, made: dict[str, Any], tmp_path: Path, profile: Callable[..., None]
) -> None:
    profile(verify_keys=[make_key(tmp_path, "other")[1]])
    assert refusal(checked(site, "--only-trust"))["code"] == "not_trusted"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"allowed_bases": ["docker.io/library/ubuntu:*"]}, "docker.io/library/python:3.11-slim"),
        ({"maximum_age_s": 0}, "of at most 0 days"),
    ],
)
def test_the_policy_refuses_bases_and_age(
    site: LocalGlobus,
    made: dict[str, Any],
    profile: Callable[..., None],
    rule: dict[str, Any],
    said: str,
) -> None:
    profile(**rule)
    error = refusal(checked(site, "--only-trust"))
    assert error["code"] == "not_trusted"
    assert said in error["message"]


def test_a_key_that_others_can_read_signs_nothing(
    site: LocalGlobus, tmp_path: Path, profile: Callable[..., None]
) -> None:
    private, public = make_key(tmp_path, "open")
    os.chmod(private, 0o640)
    profile(sign_key=private, verify_keys=[public])
    answer = site.build({**PLAIN, "name": "unsigned"})
    assert answer.code == 1
    assert "can be read by others" in answer.document["failure"]["sentence"]
    assert not (site.root / "images" / "unsigned").exists()
    assert site.leftovers() == []


def test_run_in_container_runs_what_the_policy_allows(
    site: LocalGlobus, made: dict[str, Any], profile: Callable[..., None]
) -> None:
    words = ("containers", "exec", "signed", "--json", "--", "echo", "hello")
    answer = site.cli(*words)
    assert answer.code == 0, answer.output
    assert answer.document["stdout"] == "hello\n"
    profile(allowed_bases=["nothing"])
    refused = site.cli(*words)
    assert refused.code == 1
    assert "not one that this site allows" in refused.output + refused.errors


def test_a_pushed_image_is_the_same_container_at_two_more_sites(
    site: LocalGlobus,
    made: dict[str, Any],
    keys: tuple[str, str],
    start_globus: Callable[..., LocalGlobus],
) -> None:
    mirrors = json.loads((site.home / "site.json").read_text()).get("registry_mirrors") or {}
    host = next((h for h in mirrors.values() if h.startswith("127.0.0.1:")), None)
    if not host:
        pytest.skip(
            "there is no registry on this machine; deploy_scripts/base_registry.sh starts one"
        )
    artifact = f"oras://{host}/test/signed:v1"
    pushed = site.cli("containers", "push", "signed", artifact, "--json")
    assert pushed.code == 0, pushed.output
    assert pushed.document["sha256"] == made["sha256"]
    for other in (start_globus(verify_keys=[keys[1]]), start_globus()):
        deployed = other.cli("deploy", "--json")
        assert deployed.code == 0, deployed.output
        pull = ("containers", "pull", artifact, "theirs:v1", "--json", "--sha256")
        assert refusal(other.cli(*pull, "0" * 64))["code"] == "image_changed"
        assert list(other.root.glob("incoming/*")) == []
        pulled = other.cli(*pull, made["sha256"])
        assert pulled.code == 0, pulled.output
        assert pulled.document["container_id"] == made["container_id"]
        assert Path(pulled.document["path"]).read_bytes() == Path(made["path"]).read_bytes()
        verified = other.cli("containers", "verify", "theirs:v1", "--only-trust", "--json")
        assert verified.code == 0, verified.output
        shown = json.loads(Path(pulled.document["path"]).with_suffix(".json").read_text())
        knows_the_key = bool(json.loads((other.home / "site.json").read_text()).get("verify_keys"))
        assert bool(verified.document["trust"]["signer"]) is knows_the_key
        assert verified.document["trust"]["seal_signer"] is None
        # no record came along: who knows the signer believes what is signed in the image
        own = json.loads(beside(made, ".json").read_text())
        assert (shown.get("base") == own["base"]) is knows_the_key
        assert (shown.get("spec_digest") == own["spec_digest"]) is knows_the_key
        for ending in (".sbom.json", ".provenance.json"):
            there = Path(pulled.document["path"]).with_suffix(ending)
            assert there.exists() is knows_the_key
            if knows_the_key:
                assert there.read_text() == beside(made, ending).read_text()
