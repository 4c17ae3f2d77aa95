"""The two documents that describe an image to others: what is in it (SBOM), and how it was made (provenance).

The SBOM is CycloneDX 1.5, the provenance an in-toto statement with SLSA's predicate. Both are about the
squashed file system, whose digest stays the same when documents and signatures are added to the image.
"""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any
from urllib.parse import quote_from_bytes

BUILD_TYPE = "urn:cib-flows:build:1"
NO_PURL_QUOTES = ".-_~"


def document_text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def make_sbom(
    name: str, tag: str, lock: dict[str, Any], verification: dict[str, Any]
) -> dict[str, Any]:
    """The Debian, Python and conda packages that the proof found in the image."""
    digest = verification["squashfs_sha256"] or verification["sif_sha256"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'urn:cib-flows:sbom:{digest}')}",
        "version": 1,
        "metadata": {
            "timestamp": verification["verified_at"],
            "tools": {"components": [{"type": "application", "name": "cib-flows"}]},
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": name,
                "version": tag,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
            "properties": [
                {"name": "cib-flows:unknown", "value": told} for told in lock["unknown"]
            ],
        },
        "components": _each_once(
            [
                *_debian_components(lock["debian"] or []),
                *_pip_components(lock["pip"] or []),
                *_conda_components(lock["conda"] or []),
            ]
        ),
    }


def _each_once(components: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A package that is installed twice in the same version is one component: references must differ."""
    return list({component["bom-ref"]: component for component in components}.values())


def _component(
    purl: str, name: str, version: str, hashes: list[str], **properties: str
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    if len(hashes) == 1:
        made["hashes"] = [{"alg": "SHA-256", "content": hashes[0]}]
    if properties:
        made["properties"] = [
            {"name": f"cib-flows:{key}", "value": value}
            for key, value in sorted(properties.items())
        ]
    return made


def _debian_components(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # dpkg does not name the distribution; Ubuntu's own versions do
    is_ubuntu = any("ubuntu" in str(entry["version"]) for entry in entries)
    namespace = "ubuntu" if is_ubuntu else "debian"
    made = []
    for entry in entries:
        name, version = str(entry["name"]), str(entry["version"])
        architecture = _purl_part(str(entry["architecture"]))
        purl = f"pkg:deb/{namespace}/{_purl_part(name)}@{_purl_part(version)}?arch={architecture}"
        made.append(_component(purl, name, version, [entry["sha256"]] if entry["sha256"] else []))
    return made


def _pip_components(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for entry in entries:
        name, version = str(entry["name"]), str(entry["version"])
        hashes = [str(item).removeprefix("sha256:") for item in entry["hashes"]]
        properties = {"in-base": "true"} if entry["in_base"] else {}
        if "url" in entry:
            properties["url"] = str(entry["url"])
        if len(hashes) > 1:
            # the resolver allowed any of these files; which one was taken is not known
            properties["one-of-sha256"] = " ".join(hashes)
        purl = f"pkg:pypi/{_purl_part(name)}@{_purl_part(version)}"
        made.append(_component(purl, name, version, hashes, **properties))
    return made


def _conda_components(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for entry in entries:
        name, version = str(entry["name"]), str(entry["version"])
        # a purl's qualifiers stand in alphabetical order
        about = {"build": entry["build"], "channel": entry["channel"], "subdir": entry["subdir"]}
        qualifiers = "&".join(
            f"{key}={_purl_part(str(value))}" for key, value in about.items() if value
        )
        purl = f"pkg:conda/{_purl_part(name)}@{_purl_part(version)}?{qualifiers}"
        hashes = [str(entry["sha256"])] if entry["sha256"] else []
        made.append(_component(purl, name, version, hashes))
    return made


def _purl_part(text: str) -> str:
    return quote_from_bytes(text.encode(), safe=NO_PURL_QUOTES)


def make_provenance(
    plan: dict[str, Any],
    spec: dict[str, Any],
    verification: dict[str, Any],
    *,
    endpoint_id: str,
    account: str,
    started_by: str | None,
    lock_sha256: str,
    verification_sha256: str,
    functions: dict[str, str],
    function_ids: dict[str, str],
) -> dict[str, Any]:
    """Who made the image of what. ``functions`` maps each step to the sha256 of the function that did it, which
    that function said of itself; ``function_ids`` to the id under which the flow called it. ``started_by`` is
    the URN of the identity that started the flow's run.
    """
    materials = [_base_material(plan["base"])]
    if plan.get("payload_digest"):
        materials.append(_payload_material(plan["payload"], plan["payload_digest"]))
    for step, sha256 in functions.items():
        material: dict[str, Any] = {"name": f"function:{step}", "digest": {"sha256": sha256}}
        if step in function_ids:
            material["uri"] = f"urn:globus:compute:function:{function_ids[step]}"
        materials.append(material)
    asked = {key: value for key, value in spec.items() if key != "force"}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": f"{plan['name']}.squashfs",
                "digest": {"sha256": verification["squashfs_sha256"] or verification["sif_sha256"]},
            }
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"spec": asked, "spec_digest": plan["spec_digest"]},
                "internalParameters": {
                    "engine": plan["engine"],
                    "machine": plan["machine"],
                    "worker": plan["worker"],
                    "account": account,
                    "started_by": started_by,
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": f"urn:globus:compute:endpoint:{endpoint_id}"},
                "metadata": {
                    "invocationId": f"urn:globus:flows:run:{plan['run_id']}",
                    "finishedOn": _in_utc(verification["verified_at"]),
                },
                "byproducts": [
                    {"name": "recipe", "digest": {"sha256": plan["recipe_sha256"]}},
                    {"name": "lock", "digest": {"sha256": lock_sha256}},
                    {"name": "verification", "digest": {"sha256": verification_sha256}},
                ],
            },
        },
    }


def _base_material(base: dict[str, Any]) -> dict[str, Any]:
    place = str(base["resolved"])
    scheme = "file" if place.startswith("/") else str(base.get("bootstrap") or "docker")
    material: dict[str, Any] = {"name": "base", "uri": f"{scheme}://{place}"}
    if base["digest"]:
        material["digest"] = {"sha256": str(base["digest"]).removeprefix("sha256:")}
    return material


def _payload_material(payload: dict[str, Any], sha256: str) -> dict[str, Any]:
    material: dict[str, Any] = {"name": "payload", "digest": {"sha256": sha256}}
    if payload.get("url"):
        material["uri"] = str(payload["url"])
    if payload.get("git"):
        material["uri"] = f"git+{payload['git']}@{payload['commit']}"
        material["digest"]["gitCommit"] = str(payload["commit"])
    return material


def _in_utc(moment: str) -> str:
    """The form of RFC 3339 that SLSA asks for."""
    given = datetime.datetime.fromisoformat(moment)
    return given.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
