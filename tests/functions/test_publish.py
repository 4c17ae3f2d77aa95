"""A container that travels: what is offered, what is taken, and what is refused before it is registered."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions import expect_container as expect_module
from cib_flows.functions import receive_container as receive_module
from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.site import load_site
from cib_flows.functions._shared.trust import (
    PROVENANCE_ENDING,
    SBOM_ENDING,
    check_trust,
    put_beside,
    seal,
)
from cib_flows.functions.drop_delivery import drop_delivery
from cib_flows.functions.end_publication import end_publication
from cib_flows.functions.expect_container import expect_container
from cib_flows.functions.offer_container import offer_container
from cib_flows.functions.receive_container import receive_container
from cib_flows.functions.report_delivery import report_delivery

from .catalogues import published

ENDPOINT = "11111111-1111-4111-8111-111111111111"
DESTINATION = {"name": "delta", "endpoint": ENDPOINT}
COLLECTIONS = {
    "here": "aaaaaaaa-0000-4000-8000-000000000001",
    "there": "bbbbbbbb-0000-4000-8000-000000000002",
}


@dataclass
class Sites:
    """Two sites, of which one at a time is the one that functions run at."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def at(self, name: str, **fields: Any) -> Path:
        """Go to the site; returns its root."""
        root, staging = self.folder / name / "root", self.folder / name / "staging"
        for path in (root, staging):
            path.mkdir(parents=True, exist_ok=True)
        profile = {
            "name": name,
            "root": str(root),
            "staging": {
                "collection_id": COLLECTIONS[name],
                "collection_path": "/stage/",
                "path": str(staging),
            },
            **fields,
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(profile))
        self.monkeypatch.setenv("CIB_FLOWS_SITE", str(path))
        return root

    def staged(self, name: str) -> list[str]:
        staging = self.folder / name / "staging"
        return sorted(str(p.relative_to(staging)) for p in staging.rglob("*"))


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sites:
    made = Sites(tmp_path, monkeypatch)
    made.at("there")
    made.at("here")
    # what is proved by running it is tested with the real engine; here it says which file it was given
    monkeypatch.setattr(
        receive_module,
        "prove_file",
        lambda site, path, sha256, *_: {
            "python": "3.11",
            "packages": {},
            "imports": [],
            "of": sha256,
        },
    )
    return made


@pytest.fixture
def made(sites: Sites) -> dict[str, Any]:
    root = sites.at("here")
    record = published(root, "an image", "v1")
    catalogue = Catalogue(str(root))
    for ending in (SBOM_ENDING, PROVENANCE_ENDING, ".lock.json"):
        put_beside(catalogue, "demo", record["sha256"], ending, f'{{"document": "{ending}"}}')
    seal(catalogue, "demo", record["sha256"], None)
    return record


def ok(result: dict[str, Any]) -> dict[str, Any]:
    assert result["ok"], result
    assert len(json.dumps(result)) < 8192
    return result


def refused(result: dict[str, Any], code: str) -> str:
    assert not result["ok"]
    assert result["error"]["code"] == code, result
    return str(result["error"]["message"])


def carried(sites: Sites, offer: dict[str, Any], place: dict[str, Any], run_id: str) -> Path:
    """Do what Transfer does: copy what the source's collection has to where the destination's has it."""
    start = sites.folder / "here" / "staging" / offer["folder"].removeprefix("/stage/")
    goal = sites.folder / "there" / "staging" / place["folder"].removeprefix("/stage/")
    assert run_id in offer["folder"]
    assert run_id in place["folder"]
    for name in offer["files"]:
        (goal / name).write_bytes((start / name).read_bytes())
    return goal


def brought(
    sites: Sites, run_id: str, **policy: Any
) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """An offer, where the destination expects it, and the folder with the files in it."""
    sites.at("here")
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there", **policy)
    place = ok(expect_container(run_id, offer, DESTINATION))
    return offer, place, carried(sites, offer, place, run_id)


def received(
    offer: dict[str, Any], place: dict[str, Any], run_id: str, **more: Any
) -> dict[str, Any]:
    return receive_container(run_id, offer, DESTINATION, place["place"], **more)


def nothing_is_left(sites: Sites, root: Path) -> None:
    assert sites.staged("there") == []
    assert not list((root / "work").glob("*"))
    assert not list((root / "images").rglob("*.*"))
    assert not list((root / "tags").rglob("*.json"))


# -- at the source --------------------------------------------------------------------------------


def test_what_is_offered_are_second_names_of_the_same_files(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    folder = sites.folder / "here" / "staging" / offer["folder"].removeprefix("/stage/")
    assert sorted(os.listdir(folder)) == sorted(offer["files"])
    assert len(offer["files"]) == 6
    image = folder / f"{made['sha256']}.sif"
    assert os.path.samefile(image, made["path"]), "no copy was made"
    assert offer["collection_id"] == COLLECTIONS["here"]
    assert (offer["name"], offer["tag"], offer["bytes"]) == ("demo", "v1", len("an image"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o500
    ended = ok(end_publication(run_id, [{"name": "delta", "ok": True}]))
    assert ended["sentence"] == "The container is registered at one destination."
    assert sites.staged("here") == []
    assert Path(made["path"]).read_text() == "an image"


def test_a_root_on_a_collection_is_offered_where_it_lies(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    sites.at("here", root_collection={"collection_id": "cc", "collection_path": "/projects/x"})
    offer = ok(offer_container(run_id, made["container_id"]))
    assert (offer["collection_id"], offer["folder"]) == ("cc", "/projects/x/images/demo/")
    assert sites.staged("here") == []


def test_a_container_of_a_shared_catalogue_travels_too(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    shared = str(sites.folder / "here" / "root")
    before = sorted(path for path in Path(shared).rglob("*"))
    sites.at(
        "there",
        shared_roots=[shared],
        root_collection={"collection_id": "cc", "collection_path": "/"},
    )
    offer = ok(offer_container(run_id, "demo:v1"))
    assert offer["collection_id"] == COLLECTIONS["there"], "the shared root is on no collection"
    assert any(name.endswith(".sif") for name in sites.staged("there"))
    assert sorted(path for path in Path(shared).rglob("*")) == before, "it is only read"


def test_a_damaged_container_does_not_travel(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    path = Path(made["path"])
    path.chmod(0o644)
    path.write_text("an inage")
    refused(offer_container(run_id, "demo:v1"), "image_changed")
    assert sites.staged("here") == []


@pytest.mark.parametrize("container", ["demo:none", "../../etc/passwd", "", "demo:v1/../x"])
def test_what_names_no_container_is_refused(
    sites: Sites, made: dict[str, Any], run_id: str, container: str
) -> None:
    refused(offer_container(run_id, container), "container_not_found")


@pytest.mark.parametrize("name", ["../x", "Demo:v1", "demo:v1;x", "a/b", "x" * 65])
def test_an_illegal_name_for_the_destinations_is_refused_before_anything_is_done(
    sites: Sites, made: dict[str, Any], run_id: str, name: str
) -> None:
    refused(offer_container(run_id, "demo:v1", name), "illegal_name")
    assert sites.staged("here") == []


def test_a_site_without_staging_says_what_is_missing(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    sites.at("here", staging=None)
    assert "names no staging collection" in refused(
        offer_container(run_id, "demo"[:4] + ":v1"), "site_invalid"
    )


# -- before anything travels ----------------------------------------------------------------------


def test_a_destination_that_has_it_is_brought_nothing(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer, place, _ = brought(sites, run_id)
    ok(received(offer, place, run_id))
    again = str(uuid.uuid4())
    sites.at("there")
    place = ok(expect_container(again, offer, DESTINATION, "demo:second"))
    assert (place["present"], place["place"]) == (True, "")
    registered = ok(receive_container(again, offer, DESTINATION, "", "demo:second"))
    assert registered["cached"] is True
    assert (registered["tag"], registered["container_id"]) == ("second", made["container_id"])
    assert sites.staged("there") == []


def test_a_name_of_another_container_is_refused_unless_it_is_moved(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    root = sites.at("there")
    other = published(root, "another image", "v1")
    said = refused(expect_container(run_id, offer, DESTINATION), "already_exists")
    assert said == "demo:v1 names another container at there."
    assert sites.staged("there") == []
    place = ok(expect_container(run_id, offer, DESTINATION, None, True))
    carried(sites, offer, place, run_id)
    ok(received(offer, place, run_id, move=True))
    tags = Catalogue(str(root)).tags_of("demo")
    assert tags["v1"]["sha256"] == made["sha256"] != other["sha256"]


def test_a_disk_that_is_too_full_is_noticed_before(
    sites: Sites, made: dict[str, Any], run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there")

    class Full:
        f_bavail, f_frsize = 1000, 1024

    monkeypatch.setattr(expect_module.os, "statvfs", lambda _: Full)
    said = refused(expect_container(run_id, offer, DESTINATION), "disk_full")
    assert "The site there has 0 MiB free" in said
    assert sites.staged("there") == []


FULL_SITE = """
import json, os, shutil, sys
from pathlib import Path
from cib_flows.functions import receive_container as receive_module
from cib_flows.functions.expect_container import expect_container
from cib_flows.functions.receive_container import receive_container

place, given = Path(sys.argv[1]), json.loads(sys.argv[2])
for name in ("root", "staging"):
    (place / name).mkdir()
os.environ["CIB_FLOWS_SITE"] = given["site"]
receive_module.prove_file = lambda *_: {"python": "3.11", "packages": {}, "imports": []}


def filled(left):
    info = os.statvfs(place)
    with open(place / "others", "wb") as stream:
        stream.write(bytes(max(0, info.f_bavail * info.f_frsize - left)))


def left():
    kinds = ("staging", "root/work", "root/images", "root/tags")
    return [str(p.relative_to(place)) for k in kinds for p in (place / k).rglob("*") if p.is_file()]


def attempt(room):
    asked = (given["run_id"], given["offer"], given["destination"])
    filled(90 << 20)
    expected = expect_container(*asked)
    (place / "others").unlink()
    if not expected["ok"]:
        return expected
    goal = place / "staging" / expected["folder"].removeprefix("/stage/")
    for name in given["offer"]["files"]:
        shutil.copy(Path(given["source"], name), goal / name)
    filled(room)
    done = receive_container(*asked, expected["place"])
    (place / "others").unlink(missing_ok=True)
    return done


filled(60 << 20)
early = expect_container(given["run_id"], given["offer"], given["destination"])
(place / "others").unlink()
said = {"early": early, "early_left": left()}
for room in (6 << 20, 0):
    said[str(room)] = [attempt(room), left()]
said["room"] = attempt(80 << 20)
print(json.dumps(said))
"""


def test_a_site_that_is_full_says_so_and_takes_the_container_once_there_is_room(
    sites: Sites, run_id: str, tmp_path: Path
) -> None:
    """A real file system of 100 MiB: too full to begin with, then filled by others on the way."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"]).returncode != 0:
        pytest.skip("this system gives ordinary users no mount namespace")
    root = sites.at("here")
    record = published(root, "an image" * (1 << 20), "v1")
    seal(Catalogue(str(root)), "demo", record["sha256"], None)
    offer = ok(offer_container(run_id, "demo:v1"))
    place = tmp_path / "there"
    sites.at("there")
    given = {
        "site": os.environ["CIB_FLOWS_SITE"],
        "run_id": run_id,
        "offer": offer,
        "destination": DESTINATION,
        "source": str(Path(record["path"]).parent),
    }
    (tmp_path / "driver.py").write_text(FULL_SITE)
    script = 'mount -t tmpfs -o size=100m none "$1" && exec "$2" "$3" "$1" "$4"'
    words = [place, sys.executable, tmp_path / "driver.py", json.dumps(given)]
    done = subprocess.run(
        [*namespace, "sh", "-c", script, "sh", *words],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "MiB free in" in refused(said["early"], "disk_full")
    assert said["early_left"] == []
    for room in (6 << 20, 0):
        result, left = said[str(room)]
        assert str(place) in refused(result, "disk_full")
        assert left == []
    # nothing of what failed is in the way
    assert ok(said["room"])["sha256"] == record["sha256"]


@pytest.mark.parametrize(
    ("collection", "is_agreed"),
    [
        ({"id": COLLECTIONS["there"]}, True),
        ({"id": COLLECTIONS["there"], "path": "/stage"}, True),
        ({"id": COLLECTIONS["there"], "path": "/"}, True),
        ({}, True),
        (None, True),
        ({"id": COLLECTIONS["there"], "path": "/sta"}, False),
        ({"id": COLLECTIONS["there"], "path": "/elsewhere/"}, False),
        ({"id": COLLECTIONS["here"], "path": "/stage/"}, False),
    ],
)
def test_files_go_only_where_the_input_allows(
    sites: Sites, made: dict[str, Any], run_id: str, collection: Any, is_agreed: bool
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there")
    answer = expect_container(run_id, offer, {**DESTINATION, "collection": collection})
    assert answer["ok"] is is_agreed
    assert bool(sites.staged("there")) is is_agreed


HOSTILE: list[dict[str, Any]] = [
    {"files": ["../../../etc/passwd"]},
    {"files": ["a" * 64 + ".sif", "a" * 64 + ".json", "a" * 64 + ".sha256"]},
    {"files": "everything"},
    {"files": []},
    {"sha256": "../" + "0" * 61},
    {"sha256": None},
    {"container_id": "00000000-0000-5000-8000-000000000000"},
    {"bytes": -1},
    {"bytes": True},
    {"bytes": "8"},
    {"name": "../../x"},
    {"tag": "a/b"},
    {"sums_sha256": "x"},
]


@pytest.mark.parametrize(
    "change", HOSTILE, ids=lambda c: f"{next(iter(c))}-{next(iter(c.values()))!s:.20}"
)
def test_a_hostile_offer_reaches_no_folder(
    sites: Sites, made: dict[str, Any], run_id: str, change: dict[str, Any]
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    root = sites.at("there")
    refused(expect_container(run_id, {**offer, **change}, DESTINATION), "illegal_name")
    refused(
        receive_container(run_id, {**offer, **change}, DESTINATION, "delivery-" + "0" * 16),
        "illegal_name",
    )
    assert sites.staged("there") == []
    assert not (root / "work").exists()


@pytest.mark.parametrize(
    "destination",
    [
        {},
        "delta",
        {"endpoint": "x"},
        {"endpoint": ENDPOINT, "function": "mine"},
        {"endpoint": ENDPOINT, "collection": "x"},
        {"endpoint": ENDPOINT, "run_endpoint": "../x"},
    ],
)
def test_a_destination_that_is_none_is_refused(
    sites: Sites, made: dict[str, Any], run_id: str, destination: Any
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there")
    refused(expect_container(run_id, offer, destination), "illegal_name")


@pytest.mark.parametrize(
    "place", ["../../root", "delivery-", "offer-" + "g" * 16, "delivery-" + "0" * 16 + "/x"]
)
def test_a_place_that_is_none_is_refused(
    sites: Sites, made: dict[str, Any], run_id: str, place: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there")
    refused(receive_container(run_id, offer, DESTINATION, place), "illegal_name")


@pytest.mark.parametrize("bad", ["../x", "", None, "x" * 36])
def test_a_run_id_that_is_none_is_refused(sites: Sites, made: dict[str, Any], bad: Any) -> None:
    refused(offer_container(bad, "demo:v1"), "run_not_found")
    refused(drop_delivery(bad), "run_not_found")


# -- at the destination ---------------------------------------------------------------------------


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


# -- afterwards -----------------------------------------------------------------------------------


def test_a_delivery_is_dropped_and_the_offer_beside_it_stays(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    """Source and destination may be one site."""
    offer = ok(offer_container(run_id, "demo:v1"))
    root = sites.folder / "here" / "root"
    ok(expect_container(run_id, offer, DESTINATION, "other:v1"))
    assert any("delivery-" in name for name in sites.staged("here"))
    assert ok(drop_delivery(run_id))["cleaned"]
    left = sites.staged("here")
    assert any("offer-" in name for name in left)
    assert not any("delivery-" in name for name in left)
    assert ok(drop_delivery(run_id, True))["cleaned"]
    assert sites.staged("here") == []
    assert Catalogue(str(root)).find("demo:v1")


def test_what_a_cancelled_run_left_is_swept_after_two_weeks(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there")
    ok(expect_container(run_id, offer, DESTINATION))
    (old,) = (sites.folder / "there" / "staging").glob("*/*")
    os.utime(old, (1, 1))
    later = str(uuid.uuid4())
    ok(expect_container(later, offer, DESTINATION))
    assert all(later in name for name in sites.staged("there"))


def test_a_step_that_is_under_way_when_the_run_is_cancelled_leaves_nothing(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    assert ok(drop_delivery(run_id, True))["cleaned"]
    refused(offer_container(run_id, "demo:v1"), "aborted")
    assert sites.staged("here") == []
    sites.at("there")
    assert ok(drop_delivery(run_id, True))["cleaned"]
    refused(expect_container(run_id, offer, DESTINATION), "aborted")
    assert sites.staged("there") == []


TIMEOUT = {"Error": "ActionTimeout", "Cause": "…"}
NEVER_ASKED = {"step": "expect_container", "output": None}
NOT_TRUSTED = {"ok": False, "error": {"code": "not_trusted", "message": "No."}}
FAILED_TASK = {
    "status": "FAILED",
    "details": {"fatal_error": {"description": "No such collection"}},
}
EXPECTED = {"step": "expect_container", "output": {"ok": True, "present": False}}
NOTHING = {"step": "receive_container", "output": None}


@pytest.mark.parametrize(
    ("caught", "transfer", "outputs", "step", "said"),
    [
        (TIMEOUT, None, [NEVER_ASKED, NOTHING], "expect_container", "not finish within"),
        (None, FAILED_TASK, [EXPECTED, NOTHING], "transfer_image", "could not be transferred: No such collection"),
        (TIMEOUT, {"status": "SUCCEEDED"}, [EXPECTED, NOTHING], "receive_container", "not be registered: the step"),
        (TIMEOUT, None, [EXPECTED, NOTHING], "transfer_image", "could not be transferred: the step"),
        (
            None,
            {"status": "SUCCEEDED"},
            [EXPECTED, {"step": "receive_container", "output": NOT_TRUSTED}],
            "receive_container",
            "No.",
        ),
    ],
)  # fmt: skip
def test_why_a_destination_failed_is_one_sentence(
    run_id: str, caught: Any, transfer: Any, outputs: Any, step: str, said: str
) -> None:
    report = ok(report_delivery(run_id, caught, transfer, outputs))
    assert report["failed_step"] == step
    assert said in report["sentence"]
    assert "\n" not in report["sentence"]


def test_the_last_sentence_names_every_destination_that_failed(sites: Sites, run_id: str) -> None:
    outcomes = [
        {"name": "delta", "ok": True},
        {"name": "polaris", "ok": False, "sentence": "The disk is full."},
        {"name": "aurora", "ok": False, "sentence": "It is down."},
    ]
    ended = ok(end_publication(run_id, outcomes))
    assert ended["sentence"] == (
        "The container could not be published to polaris (The disk is full), aurora (It is down); "
        "it is registered at one destination."
    )
    assert (ended["failed"], ended["registered"]) == (2, 1)


def test_the_longest_sentence_fits(sites: Sites, run_id: str) -> None:
    outcomes = [{"name": "n" * 200, "ok": False, "sentence": "ß" * 3000} for _ in range(11)]
    assert len(ok(end_publication(run_id, outcomes))["sentence"]) < 1000


def test_a_source_that_refuses_is_told_as_it_was_said(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offered = offer_container(run_id, "nothing:v1")
    ended = ok(end_publication(run_id, [], None, offered))
    assert ended["sentence"] == "No container 'nothing:v1' is registered on this endpoint."
    assert ended["error"]["code"] == "container_not_found"
