"""What a destination looks at before a container that travelled is registered."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions import receive_container as receive_module
from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.site import load_site
from cib_flows.functions._shared.trust import (
    PROVENANCE_ENDING,
    SBOM_ENDING,
    check_trust,
    seal,
)
from cib_flows.functions.expect_container import expect_container
from cib_flows.functions.receive_container import receive_container

from .catalogues import published
from .deliveries import (
    DESTINATION,
    ENDPOINT,
    Sites,
    brought,
    made,
    nothing_is_left,
    ok,
    received,
    refused,
    sites,
)

__all__ = ["made", "sites"]  # fixtures


def test_it_is_the_same_container_with_the_destinations_own_record(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer, place, _ = brought(sites, run_id)
    root = sites.folder / "there" / "root"
    registered = ok(received(offer, place, run_id))
    assert registered["container_id"] == made["container_id"]
    assert registered["path"].startswith(str(root))
    assert registered["executor"] == {
        "endpoint_id": ENDPOINT,
        "user_endpoint_config": {"container_uri": registered["path"]},
    }
    assert Path(registered["path"]).read_text() == "an image"
    record = Catalogue(str(root)).find("demo:v1")
    assert record["origin"]["container_id"] == made["container_id"]
    assert record["origin"]["created_at"] == "2026-01-01T00:00:00+00:00"
    assert record["origin"]["run_id"] == run_id
    assert "build_digest" not in record, (
        "a build here is not answered with what came from elsewhere"
    )
    assert record["verification"]["of"] == made["sha256"]
    beside, theirs = Path(registered["path"]), Path(made["path"])
    for ending, field in (
        (SBOM_ENDING, "sbom"),
        (PROVENANCE_ENDING, "provenance"),
        (".lock.json", "lock"),
    ):
        text = beside.with_suffix(ending).read_bytes()
        assert text == theirs.with_suffix(ending).read_bytes()
        assert record[field]["sha256"] == hashlib.sha256(text).hexdigest()
    sums = beside.with_suffix(".sha256").read_text().splitlines()
    for line in sums:
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((beside.parent / name).read_bytes()).hexdigest() == digest
    assert len(sums) == 5
    assert sites.staged("there") == []
    assert not list((root / "work").glob("*"))


def test_its_functions_may_run_at_another_endpoint(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    other = "22222222-2222-4222-8222-222222222222"
    offer, place, _ = brought(sites, run_id)
    where = {**DESTINATION, "run_endpoint": other}
    registered = ok(receive_container(run_id, offer, where, place["place"]))
    assert registered["executor"]["endpoint_id"] == other


@pytest.mark.parametrize(
    "ending", [".sif", ".json", ".lock.json", SBOM_ENDING, PROVENANCE_ENDING, ".sha256"]
)
def test_one_byte_that_changed_on_the_way_is_refused(
    sites: Sites, made: dict[str, Any], run_id: str, ending: str
) -> None:
    offer, place, folder = brought(sites, run_id)
    path = folder / f"{made['sha256']}{ending}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(received(offer, place, run_id), "image_changed")
    nothing_is_left(sites, sites.folder / "there" / "root")


def test_a_list_that_was_made_to_fit_is_refused(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    """Whoever may write to staging can change a file and its sum, but not what the flow was told."""
    offer, place, folder = brought(sites, run_id)
    record, sums = folder / f"{made['sha256']}.json", folder / f"{made['sha256']}.sha256"
    before = hashlib.sha256(record.read_bytes()).hexdigest()
    record.write_text(record.read_text().replace("python:3.11-slim", "evil:latest"))
    sums.write_text(
        sums.read_text().replace(before, hashlib.sha256(record.read_bytes()).hexdigest())
    )
    said = refused(received(offer, place, run_id), "image_changed")
    assert said == "The list of sums is not the one that the source offered."
    nothing_is_left(sites, sites.folder / "there" / "root")


def replace_by_link(path: Path) -> None:
    secret = path.parents[3] / "secret"
    secret.write_text("what only the endpoint's account may read")
    path.unlink()
    path.symlink_to(secret)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda path: path.unlink(), "payload_not_visible"),
        (replace_by_link, "payload_not_visible"),
        (replace_by_pipe, "image_changed"),
        (replace_by_folder, "image_changed"),
        (lambda path: os.truncate(path, 2 * 64 * 1024 * 1024), "image_changed"),
    ],
    ids=["missing", "link", "pipe", "folder", "too-large"],
)
def test_what_is_not_the_file_that_was_offered_is_refused(
    sites: Sites, made: dict[str, Any], run_id: str, harm: Callable[[Path], None], code: str
) -> None:
    offer, place, folder = brought(sites, run_id)
    harm(folder / f"{made['sha256']}.sif")
    refused(received(offer, place, run_id), code)
    nothing_is_left(sites, sites.folder / "there" / "root")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"allowed_bases": ["docker.io/library/debian:*"]}, "docker.io/library/python:3.11-slim"),
        ({"maximum_age_s": 3600}, "registered on 2026-01-01"),
        ({"require_signature": True}, "no valid signature"),
    ],
)
def test_the_destinations_policy_decides(
    sites: Sites, made: dict[str, Any], run_id: str, policy: dict[str, Any], said: str
) -> None:
    record = Path(made["path"]).with_suffix(".json")
    fields = {**made, "base": {"bootstrap": "docker", "image": "python:3.11-slim"}}
    record.chmod(0o644)
    record.write_text(json.dumps(fields))
    seal(Catalogue(str(sites.folder / "here" / "root")), "demo", made["sha256"], None)
    offer, place, _ = brought(sites, run_id, **policy)
    assert said in refused(received(offer, place, run_id), "not_trusted")
    nothing_is_left(sites, sites.folder / "there" / "root")


def test_the_age_goes_on_counting_where_it_arrives(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    """Publishing an image does not make it young."""
    offer, place, _ = brought(sites, run_id)
    ok(received(offer, place, run_id))
    root = sites.at("there", maximum_age_s=3600)
    record = Catalogue(str(root)).find("demo:v1")
    assert not record["created_at"].startswith("2026-01-01")
    with pytest.raises(StepFailed, match="registered on 2026-01-01"):
        check_trust(load_site(), Catalogue(str(root)), record)


def test_a_proof_that_fails_registers_nothing(
    sites: Sites, made: dict[str, Any], run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise StepFailed("verify_architecture", "The image is for another processor.")

    monkeypatch.setattr(receive_module, "prove_file", failing)
    offer, place, _ = brought(sites, run_id)
    refused(received(offer, place, run_id), "verify_architecture")
    nothing_is_left(sites, sites.folder / "there" / "root")


def test_a_name_that_was_taken_meanwhile_is_not_taken_away(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer, place, _ = brought(sites, run_id)
    root = sites.at("there")
    other = published(root, "another image", "v1")
    refused(received(offer, place, run_id), "already_exists")
    assert Catalogue(str(root)).tags_of("demo")["v1"]["sha256"] == other["sha256"]
    assert sites.staged("there") == []


def test_a_registration_that_was_killed_before_its_list_gets_one(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer, place, _ = brought(sites, run_id)
    registered = ok(received(offer, place, run_id))
    sums = Path(registered["path"]).with_suffix(".sha256")
    sums.unlink()
    again = str(uuid.uuid4())
    place = ok(expect_container(again, offer, DESTINATION))
    ok(receive_container(again, offer, DESTINATION, place["place"]))
    assert sums.exists()
