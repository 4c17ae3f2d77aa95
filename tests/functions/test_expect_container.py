"""What a destination is asked before anything travels, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions import expect_container as expect_module
from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.trust import (
    seal,
)
from cib_flows.functions.drop_delivery import drop_delivery
from cib_flows.functions.expect_container import expect_container
from cib_flows.functions.offer_container import offer_container
from cib_flows.functions.receive_container import receive_container

from .catalogues import published
from .deliveries import (
    COLLECTIONS,
    DESTINATION,
    ENDPOINT,
    Sites,
    brought,
    carried,
    made,
    ok,
    received,
    refused,
    sites,
)

__all__ = ["made", "sites"]  # fixtures


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
