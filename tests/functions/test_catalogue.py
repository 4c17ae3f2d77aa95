"""Managing what is registered: names, removal, retention, and many hands at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import removal as removal_module
from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.holds import leased, storage_time
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions.container_lock import container_lock
from cib_flows.functions.diff_containers import diff_containers
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.offer_container import offer_container
from cib_flows.functions.register_image import register_image
from cib_flows.functions.remove_container import remove_container
from cib_flows.functions.tag_container import tag_container
from cib_flows.functions.verify_container import verify_container

from .catalogues import key_of, names_listed, ok, publish, published, refused
from .conftest import Site

# -- finding ------------------------------------------------------------------------------------


def test_the_list_is_filtered_by_name_base_and_package(site: Site) -> None:
    publish(site.root, "one", "alpha-cpu")
    publish(site.root, "two", "alpha-gpu", base={"image": "cuda:12"}, spec={}, verification={})
    publish(site.root, "three", "beta", verification={"packages": {"numpy": "1.26.0"}})
    assert sorted(names_listed(name="alpha-*")) == ["alpha-cpu", "alpha-gpu"]
    assert names_listed(base="cuda") == ["alpha-gpu"]
    assert sorted(names_listed(package="numpy")) == ["alpha-cpu", "beta"]
    assert names_listed(package="NumPy==2.1.0") == ["alpha-cpu"]
    assert sorted(names_listed(package="git")) == ["alpha-cpu", "beta"]
    assert names_listed(package="six") == []  # it is there, and nobody asked for it
    assert names_listed(package="; rm -rf /") == []
    assert ok(list_containers(name="alpha-*"))["total"] == 2


def test_the_list_is_sorted_by_size_and_name(site: Site) -> None:
    for name, content in (("b", "large image"), ("c", "x"), ("a", "middle")):
        publish(site.root, content, name)
    assert names_listed(sort="size") == ["b", "a", "c"]
    assert names_listed(sort="name") == ["a", "b", "c"]
    assert ok(list_containers())["total_bytes"] == len("large imagexmiddle")
    assert refused(list_containers(sort="colour")) == "illegal_name"


def test_what_another_process_registers_and_tags_is_seen_at_once(site: Site) -> None:
    for number in range(5):
        assert ok(list_containers())["total"] == number
        published(site.root, f"image {number}", f"v{number}")
        assert ok(list_containers(limit=1))["total"] == number + 1
    tags = {tag for row in ok(list_containers(limit=12))["containers"] for tag in row["tags"]}
    assert tags == {f"v{number}" for number in range(5)}


@pytest.mark.parametrize("damage", ["", "{}", '{"format": 1, "images": 3}', "not json", None])
def test_a_damaged_or_lost_index_costs_nothing_but_time(site: Site, damage: str | None) -> None:
    published(site.root, "one", "v1")
    ok(list_containers())
    index = site.root / "index.json"
    if damage is None:
        index.unlink()
    else:
        index.write_text(damage)
    (row,) = ok(list_containers())["containers"]
    assert (row["name"], row["tags"]) == ("demo", ["v1"])


def test_a_root_that_may_only_be_read_is_listed(site: Site) -> None:
    published(site.root, "one", "v1")
    os.chmod(site.root, 0o555)
    try:
        assert ok(list_containers())["total"] == 1
    finally:
        os.chmod(site.root, 0o755)


def test_the_containers_of_a_shared_catalogue_are_found_after_ones_own(
    site: Site, tmp_path: Path
) -> None:
    shared = tmp_path / "project"
    shared.mkdir()
    published(shared, "of the project", "latest", name="common")
    published(shared, "older of the project", "latest")
    published(site.root, "my own", "latest")
    site.set(shared_roots=[str(shared)])
    rows = {row["path"]: row for row in ok(list_containers())["containers"]}
    assert len(rows) == 3
    assert sum("shared" in row for row in rows.values()) == 2
    own = ok(list_containers("demo"))["container"]
    assert own["path"].startswith(str(site.root))
    assert ok(list_containers("common"))["container"]["path"].startswith(str(shared))
    assert refused(remove_container("common")) == "container_not_found"


# -- names --------------------------------------------------------------------------------------


def test_a_container_gets_further_names(site: Site) -> None:
    record = published(site.root, "one", "latest")
    assert ok(tag_container("tag", "demo", "v1"))["name"] == "demo"
    assert ok(tag_container("tag", "demo", "other.name:v2"))["tag"] == "v2"
    for reference in ("demo:v1", "other.name:v2"):
        found = ok(list_containers(reference))["container"]
        assert found["container_id"] == record["container_id"]
    # saying so twice is no conflict
    assert ok(tag_container("tag", "demo", "v1"))["container_id"] == record["container_id"]


def test_a_name_of_another_container_is_taken_only_on_purpose(site: Site) -> None:
    first, second = published(site.root, "one", "v1"), published(site.root, "two", "v2")
    assert refused(tag_container("tag", "demo:v2", "v1")) == "already_exists"
    assert ok(list_containers("demo:v1"))["container"]["sha256"] == first["sha256"]
    ok(tag_container("move", "demo:v2", "v1"))
    assert ok(list_containers("demo:v1"))["container"]["sha256"] == second["sha256"]


@pytest.mark.parametrize("name", ["", ":", "a:", ":b:", "A:b", "a:B", "../x:y", "a:../y", "é:x"])
def test_an_illegal_name_is_refused_before_anything_is_written(site: Site, name: str) -> None:
    published(site.root, "one", "latest")
    assert refused(tag_container("tag", "demo", name)) == "illegal_name"
    assert [p.name for p in (site.root / "tags" / "demo").iterdir()] == ["latest.json"]


def test_untagging_tells_what_is_left(site: Site) -> None:
    published(site.root, "one", "v1", "v2")
    assert ok(tag_container("untag", "demo:v1"))["tags"] == ["v2"]
    assert refused(tag_container("untag", "demo:v1")) == "container_not_found"
    assert refused(tag_container("untag", "demo")) == "illegal_name"


def test_an_image_removed_while_it_is_tagged_gets_no_tag(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = published(site.root, "one", "v1")
    catalogue = Catalogue(str(site.root))
    os.unlink(record["path"])
    with pytest.raises(StepFailed, match="was removed while") as failure:
        catalogue.tag("demo", "v2", record, "now")
    assert failure.value.code == "container_not_found"
    assert list(catalogue.tags_of("demo")) == ["v1"]


def test_the_history_tells_what_happened_in_order(site: Site) -> None:
    first = published(site.root, "one", "latest")
    second = published(site.root, "two", "latest")
    ok(tag_container("pin", "demo", why="the paper"))
    ok(remove_container(first["container_id"]))
    events = list(reversed(ok(list_containers(history="demo"))["events"]))
    assert [event["event"] for event in events] == [
        "registered", "tagged", "registered", "tagged", "pinned", "removed",
    ]  # fmt: skip
    moved = events[3]
    assert (moved["tag"], moved["previous"], moved["sha256"]) == (
        "latest",
        first["sha256"],
        second["sha256"],
    )
    assert refused(list_containers(history="unheard-of")) == "container_not_found"


# -- removal ------------------------------------------------------------------------------------


def test_a_tagged_container_is_removed_only_by_force_and_with_its_tags(site: Site) -> None:
    record = published(site.root, "one", "v1", "v2")
    result = remove_container("demo:v1")
    assert refused(result) == "in_use"
    assert "demo:v1" in result["error"]["message"]
    assert "demo:v2" in result["error"]["message"]
    removed = ok(remove_container("demo:v1", force=True))
    assert removed["tags"] == ["demo:v1", "demo:v2"]
    assert refused(list_containers("demo:v1")) == "container_not_found"
    assert ok(list_containers())["total"] == 0
    assert Catalogue(str(site.root)).built(record["build_digest"]) is None
    # a job that runs from it keeps it for a while
    assert (Path(removed["trash"]) / f"{record['sha256']}.sif").read_text() == "one"


def test_one_content_under_two_names_is_two_images(site: Site) -> None:
    published(site.root, "same", "latest")
    published(site.root, "same", "latest", name="other")
    ok(tag_container("tag", "demo", "third:v1"))
    ok(tag_container("pin", "demo"))
    removed = ok(remove_container("other", force=True))
    assert removed["tags"] == ["other:latest"]
    (row,) = ok(list_containers())["containers"]
    assert (row["name"], row["tags"], row["other_names"]) == ("demo", ["latest"], ["third:v1"])
    assert Path(row["path"]).read_text() == "same"
    assert ok(list_containers("third:v1"))["container"]["path"] == row["path"]
    assert refused(remove_container("demo")) == "in_use"


def test_an_untagged_container_is_removed_by_its_id(site: Site) -> None:
    record = publish(site.root, "one")
    ok(remove_container(record["container_id"][:8]))
    assert refused(remove_container(record["container_id"])) == "container_not_found"


def test_a_leased_container_is_not_removed_even_by_force(site: Site) -> None:
    record = publish(site.root, "one")
    catalogue = Catalogue(str(site.root))
    with leased(catalogue, "demo", record["sha256"], "a long analysis"):
        result = remove_container(record["container_id"], force=True)
        assert refused(result) == "in_use"
        assert "a long analysis" in result["error"]["message"]
    ok(remove_container(record["container_id"]))
    with (
        pytest.raises(StepFailed, match="was removed just now"),
        leased(catalogue, "demo", record["sha256"], "too late"),
    ):
        pytest.fail("an image that is gone cannot be used")
    assert not any(os.scandir(site.root / "leases" / key_of(record)))


def test_a_lease_of_a_killed_user_ends(site: Site) -> None:
    record = publish(site.root, "one")
    place = site.root / "leases" / key_of(record)
    place.mkdir(parents=True)
    (place / "0.json").write_text('{"why": "killed"}')
    assert refused(remove_container(record["container_id"])) == "in_use"
    then = storage_time(str(site.root)) - 3600
    os.utime(place / "0.json", (then, then))
    ok(remove_container(record["container_id"]))


def test_the_base_of_a_build_under_way_is_not_removed(site: Site) -> None:
    record = publish(site.root, "one")
    run_id = "00000000-0000-4000-8000-000000000001"
    run = site.root / "runs" / run_id
    run.mkdir(parents=True)
    (site.root / "work" / run_id).mkdir(parents=True)
    (run / "heartbeat").write_text("")
    (run / "status.json").write_text('{"state": "running"}')
    (run / "plan.json").write_text(json.dumps({"base": {"resolved": record["path"]}}))
    result = remove_container(record["container_id"])
    assert refused(result) == "in_use"
    assert run_id in result["error"]["message"]
    then = storage_time(str(site.root)) - 3600  # its node has died
    os.utime(run / "heartbeat", (then, then))
    ok(remove_container(record["container_id"]))


def test_a_tag_that_comes_while_an_image_is_being_removed_keeps_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = publish(site.root, "one")
    hide = removal_module._hide

    def tagged_just_then(catalogue: Catalogue, row: dict[str, Any]) -> str | None:
        pointer = {key: record[key] for key in ("container_id", "name", "sha256")}
        (site.root / "tags" / "demo").mkdir(parents=True)
        (site.root / "tags" / "demo" / "mine.json").write_text(json.dumps(pointer))
        return hide(catalogue, row)

    monkeypatch.setattr(removal_module, "_hide", tagged_just_then)
    assert refused(remove_container(record["container_id"])) == "in_use"
    assert ok(list_containers("demo:mine"))["container"]["sha256"] == record["sha256"]
    assert list((site.root / "trash").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../../secret", "..", "/etc", "../history/demo", "a/b", "Demo", ""]
)
def test_a_history_looks_into_nothing_but_images(site: Site, name: str) -> None:
    publish(site.root, "one")
    secret = site.root.parent / "secret"
    secret.mkdir()
    (secret / "config.json").write_text('{"auths": "a password"}')
    result = list_containers(history=name)
    assert refused(result) == "illegal_name"
    assert "a password" not in json.dumps(result)


@pytest.mark.parametrize(
    "ask",
    [
        lambda wrong: list_containers(wrong),
        lambda wrong: list_containers(history=wrong),
        lambda wrong: list_containers(name=wrong),
        lambda wrong: list_containers(sort=wrong),
        lambda wrong: list_containers(limit=wrong),
        lambda wrong: tag_container("tag", wrong, "demo:v1"),
        lambda wrong: tag_container("untag", wrong),
        lambda wrong: remove_container(wrong),
        lambda wrong: verify_container(wrong, only_trust=True),
        lambda wrong: container_lock(wrong),
        lambda wrong: diff_containers(wrong, "demo"),
        lambda wrong: offer_container("04954abd-2afe-49f0-8678-e152acd779bb", wrong),
        lambda wrong: register_image(wrong, "demo:v1", "04954abd-2afe-49f0-8678-e152acd779bb"),
    ],
)
@pytest.mark.parametrize("wrong", [["demo"], {"name": "demo"}])
def test_what_is_no_text_is_refused_in_one_sentence(
    site: Site, ask: Callable[[Any], dict[str, Any]], wrong: Any
) -> None:
    """A flow passes on whatever JSON its input holds."""
    publish(site.root, "one")
    result = ask(wrong)
    assert refused(result) == "illegal_name"
    assert result["error"]["message"].endswith(".")
