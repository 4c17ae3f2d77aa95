"""What is noticed of a container on a site that signs nothing, and what a site's policy refuses there.

Signatures themselves are tested with the real engine, in ``tests/apptainer/test_trust.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.trust import base_of, has_policy, require_allowed
from cib_flows.functions.register_container import register_container
from cib_flows.functions.verify_container import verify_container
from cib_flows.functions.verify_image import verify_image

from .conftest import Run, Site

ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"


@pytest.fixture
def made(built: Callable[..., tuple[Run, str]]) -> dict[str, Any]:
    run, sha256 = built()
    verified = verify_image(run.id, sha256)
    result = register_container(run.id, ENDPOINT, sha256, verified["verification_sha256"])
    assert result["ok"] is True, result
    return result


def beside(made: dict[str, Any], ending: str) -> Path:
    return Path(made["path"]).with_suffix(ending)


def changed(path: Path, old: bytes, new: bytes) -> None:
    path.chmod(0o644)
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new, 1))


def refused(made: dict[str, Any]) -> dict[str, str]:
    result = verify_container(made["container_id"], only_trust=True)
    assert result["ok"] is False
    error: dict[str, str] = result["error"]
    return error


def test_an_unsigned_container_is_whole_and_signed_by_nobody(made: dict[str, Any]) -> None:
    result = verify_container(made["container_id"], only_trust=True)
    assert result["trust"] == {"sealed": True, "signer": None, "seal_signer": None}
    record = json.loads(Path(made["record_path"]).read_text())
    assert record["signature"] is None
    assert json.loads(beside(made, ".sbom.json").read_text())["specVersion"] == "1.5"


@pytest.mark.parametrize(
    ("ending", "old", "new"),
    [
        (".sif", b"SIF one", b"SIF ond"),
        (".json", b'"account": "', b'"account": "x'),
        (".sbom.json", b"CycloneDX", b"CyclonedX"),
        (".provenance.json", b"slsa", b"slsb"),
        (".lock.json", b"lock_version", b"lock_versiom"),
        (".sha256", b".json", b".jsom"),
    ],
)
def test_a_changed_byte_is_noticed(
    made: dict[str, Any], ending: str, old: bytes, new: bytes
) -> None:
    changed(beside(made, ending), old, new)
    assert refused(made)["code"] == "image_changed"


def test_a_document_that_is_gone_is_noticed(made: dict[str, Any]) -> None:
    beside(made, ".sbom.json").unlink()
    assert "sbom.json is missing" in refused(made)["message"]


def test_a_list_that_leaves_something_out_is_noticed(made: dict[str, Any]) -> None:
    sums = beside(made, ".sha256")
    lines = [line for line in sums.read_text().splitlines(True) if "lock" not in line]
    sums.chmod(0o644)
    sums.write_text(
        "".join(line for line in lines if not line.endswith(f"{made['sha256']}.json\n"))
    )
    assert refused(made)["code"] == "image_changed"


def test_a_container_of_an_older_version_has_no_list(made: dict[str, Any]) -> None:
    beside(made, ".sha256").unlink()
    result = verify_container(made["container_id"], only_trust=True)
    assert result["trust"]["sealed"] is False


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"require_signature": True}, "no valid signature"),
        ({"allowed_bases": ["docker.io/library/alpine:*"]}, "docker.io/library/debian:12-slim"),
        ({"maximum_age_s": 0}, "at most 0 days"),
    ],
)
def test_the_sites_policy_is_obeyed_before_an_image_runs(
    made: dict[str, Any], site: Site, rule: dict[str, Any], said: str
) -> None:
    require_allowed(site.loaded(), made["path"])
    site.set(**rule)
    assert has_policy(site.loaded())
    with pytest.raises(StepFailed, match=said) as failure:
        require_allowed(site.loaded(), made["path"])
    assert failure.value.code == "not_trusted"
    assert refused(made)["code"] == "not_trusted"


def test_a_policy_that_is_met_allows(made: dict[str, Any], site: Site) -> None:
    site.set(allowed_bases=["docker.io/library/*"], maximum_age_s=3600)
    require_allowed(site.loaded(), made["path"])
    assert verify_container(made["container_id"], only_trust=True)["ok"] is True


def test_a_site_with_a_policy_runs_registered_images_only(site: Site, tmp_path: Path) -> None:
    stray = tmp_path / "stray.sif"
    stray.write_text("SIF")
    require_allowed(site.loaded(), str(stray))
    site.set(maximum_age_s=3600)
    with pytest.raises(StepFailed, match="not a registered container"):
        require_allowed(site.loaded(), str(stray))


def test_a_copied_record_vouches_for_no_other_file(made: dict[str, Any], site: Site) -> None:
    """What is checked must be what runs: the record beside it is sound, and of an image elsewhere."""
    site.set(allowed_bases=["docker.io/library/*"])
    sound = Path(made["path"])
    evil = sound.parent.with_name("evil") / sound.name
    shutil.copytree(sound.parent, evil.parent)
    evil.chmod(0o644)
    evil.write_bytes(b"SIF of somebody else")
    require_allowed(site.loaded(), str(sound))
    with pytest.raises(StepFailed, match="is not a registered container"):
        require_allowed(site.loaded(), str(evil))


def test_a_public_key_must_be_one(made: dict[str, Any], site: Site, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    site.set(verify_keys=[str(key)])
    error = refused(made)
    assert error["code"] == "site_invalid"
    assert "no public key in PEM form" in error["message"]


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ({"bootstrap": "docker", "image": "debian:12"}, "docker.io/library/debian:12"),
        ({"bootstrap": "oras", "image": "ghcr.io/a/b:c"}, "ghcr.io/a/b:c"),
        ({"bootstrap": "localimage", "image": "/root/images/a/b.sif"}, "/root/images/a/b.sif"),
        (None, ""),
    ],
)
def test_a_base_is_named_in_full(base: Any, name: str) -> None:
    assert base_of({"base": base}) == name
