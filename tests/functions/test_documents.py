"""The documents that describe an image to others."""

from __future__ import annotations

from typing import Any

import pytest

from cib_flows.functions._shared.documents import document_text, make_provenance, make_sbom
from tests.documents import validate_provenance, validate_sbom

LOCK: dict[str, Any] = {
    "unknown": ["1 of 2 Debian packages have no sha256."],
    "debian": [
        {"name": "libc6", "version": "2.36-9+deb12u10", "architecture": "amd64", "sha256": None},
        {"name": "g++", "version": "4:12.2.0-3", "architecture": "amd64", "sha256": "d" * 64},
    ],
    "pip": [
        {"name": "jinja2", "version": "3.1.4", "hashes": [f"sha256:{'a' * 64}"], "in_base": False},
        {
            "name": "numpy",
            "version": "2.1.0+local",
            "hashes": [f"sha256:{'b' * 64}", f"sha256:{'c' * 64}"],
            "in_base": False,
        },
        {"name": "pip", "version": "24.0", "hashes": [], "in_base": True},
    ],
    "conda": [
        {
            "name": "hdf5",
            "version": "1.14",
            "build": "nompi_h0",
            "subdir": "linux-64",
            "channel": "https://conda.example/forge",
            "sha256": "e" * 64,
        }
    ],
}
VERIFICATION = {
    "squashfs_sha256": "5" * 64,
    "sif_sha256": "6" * 64,
    "verified_at": "2026-01-01T00:00:00+00:00",
}
PLAN: dict[str, Any] = {
    "name": "demo",
    "run_id": "11111111-1111-1111-1111-111111111111",
    "spec_digest": "1" * 64,
    "recipe_sha256": "2" * 64,
    "engine": "apptainer version 1.4.5",
    "machine": "x86_64",
    "worker": {},
    "base": {"resolved": "docker.io/library/debian:12", "digest": f"sha256:{'3' * 64}"},
    "payload": {"kind": "git", "git": "https://git.example/lab", "commit": "c0ffee"},
    "payload_digest": "4" * 64,
}


def components(lock: dict[str, Any]) -> dict[str, dict[str, Any]]:
    sbom = make_sbom("demo", "v1", lock, VERIFICATION)
    return {component["name"]: component for component in sbom["components"]}


def test_packages_have_the_urls_that_scanners_look_up() -> None:
    found = {name: component["purl"] for name, component in components(LOCK).items()}
    assert found == {
        "libc6": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64",
        "g++": "pkg:deb/debian/g%2B%2B@4%3A12.2.0-3?arch=amd64",
        "jinja2": "pkg:pypi/jinja2@3.1.4",
        "numpy": "pkg:pypi/numpy@2.1.0%2Blocal",
        "pip": "pkg:pypi/pip@24.0",
        "hdf5": "pkg:conda/hdf5@1.14?build=nompi_h0&channel=https%3A%2F%2Fconda.example%2Fforge&subdir=linux-64",
    }


def test_only_a_hash_that_is_certain_is_claimed() -> None:
    found = components(LOCK)
    assert found["jinja2"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert found["hdf5"]["hashes"] == [{"alg": "SHA-256", "content": "e" * 64}]
    assert found["g++"]["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]
    for name in ("numpy", "libc6", "pip"):
        assert "hashes" not in found[name]
    assert found["numpy"]["properties"] == [
        {"name": "cib-flows:one-of-sha256", "value": f"{'b' * 64} {'c' * 64}"}
    ]


def test_ubuntus_packages_are_ubuntus() -> None:
    entry = {"name": "base-files", "version": "13ubuntu10", "architecture": "amd64", "sha256": None}
    found = components({**LOCK, "debian": [entry, *LOCK["debian"]]})
    assert found["libc6"]["purl"].startswith("pkg:deb/ubuntu/libc6@")


def test_an_image_without_packages_has_an_sbom_that_says_what_is_unknown() -> None:
    sbom = make_sbom(
        "demo", "v1", {**LOCK, "debian": None, "pip": None, "conda": None}, VERIFICATION
    )
    assert sbom["components"] == []
    assert sbom["metadata"]["properties"][0]["value"] == LOCK["unknown"][0]
    assert sbom["metadata"]["component"]["hashes"][0]["content"] == "5" * 64


def provenance(plan: dict[str, Any]) -> dict[str, Any]:
    return make_provenance(
        plan,
        {"name": "demo", "force": True},
        VERIFICATION,
        endpoint_id="e",
        account="beamline",
        started_by="urn:globus:auth:identity:someone",
        lock_sha256="7" * 64,
        verification_sha256="8" * 64,
        functions={"build_image": "f" * 64, "verify_image": "9" * 64},
        function_ids={"build_image": "some-id", "report_failure": "another"},
    )


def test_provenance_says_of_what_and_by_whom() -> None:
    made = provenance(PLAN)
    assert made["subject"] == [{"name": "demo.squashfs", "digest": {"sha256": "5" * 64}}]
    definition = made["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {
        "spec": {"name": "demo"},
        "spec_digest": "1" * 64,
    }
    assert definition["resolvedDependencies"] == [
        {
            "name": "base",
            "uri": "docker://docker.io/library/debian:12",
            "digest": {"sha256": "3" * 64},
        },
        {
            "name": "payload",
            "uri": "git+https://git.example/lab@c0ffee",
            "digest": {"sha256": "4" * 64, "gitCommit": "c0ffee"},
        },
        {
            "name": "function:build_image",
            "uri": "urn:globus:compute:function:some-id",
            "digest": {"sha256": "f" * 64},
        },
        {"name": "function:verify_image", "digest": {"sha256": "9" * 64}},
    ]
    details = made["predicate"]["runDetails"]
    assert details["builder"]["id"] == "urn:globus:compute:endpoint:e"
    assert details["metadata"]["invocationId"].endswith(PLAN["run_id"])
    asked = definition["internalParameters"]
    assert (asked["account"], asked["started_by"].split(":")[-1]) == ("beamline", "someone")
    assert details["metadata"]["finishedOn"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "lock",
    [
        LOCK,
        {**LOCK, "debian": None, "pip": None, "conda": None},
        {**LOCK, "pip": [*LOCK["pip"], *LOCK["pip"]]},
    ],
    ids=["all kinds", "nothing known", "installed twice"],
)
def test_the_sbom_is_valid_by_the_schema_of_cyclonedx(lock: dict[str, Any]) -> None:
    validate_sbom(document_text(make_sbom("demo", "v1", lock, VERIFICATION)))


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        {**PLAN, "payload": {"kind": "none"}, "payload_digest": None},
        {**PLAN, "payload": {"kind": "https", "url": "https://files.example/a.zip"}},
        {**PLAN, "base": {"resolved": "library/x", "bootstrap": "library", "digest": ""}},
    ],
    ids=["git", "no payload", "https", "no digest"],
)
def test_the_provenance_is_a_statement_as_in_toto_and_slsa_have_it(plan: dict[str, Any]) -> None:
    validate_provenance(provenance(plan))


def test_a_file_base_has_an_address_too() -> None:
    base = {"resolved": "/root/images/a/b.sif", "bootstrap": "localimage", "digest": "sha256:00"}
    made = provenance({**PLAN, "base": base})
    material = made["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert material["uri"] == "file:///root/images/a/b.sif"
