"""Managing what is registered: names, removal, retention, and many hands at once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import removal as removal_module
from cib_flows.functions._shared.catalogue import Catalogue, container_id_of
from cib_flows.functions._shared.catalogue_index import image_key
from cib_flows.functions._shared.holds import holds, leased, storage_time
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions.collect_garbage import collect_garbage
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.reindex_containers import reindex_containers
from cib_flows.functions.remove_container import remove_container
from cib_flows.functions.tag_container import tag_container

from .conftest import Site

DAY_S = 86400.0


def sha256_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def publish(root: Path, content: str, name: str = "demo", **fields: Any) -> dict[str, Any]:
    """Register an image of this content, as the last step of a run does."""
    catalogue = Catalogue(str(root))
    sif = root / f"new-{os.getpid()}-{sha256_of(content)[:8]}"
    sif.write_text(content)
    sha256 = sha256_of(content)
    record = {
        "container_id": container_id_of(sha256),
        "name": name,
        "path": catalogue.image_path(name, sha256),
        "sha256": sha256,
        "bytes": len(content),
        "created_at": "2026-01-01T00:00:00+00:00",
        "build_digest": sha256_of("build of " + content),
        "base": {"image": "python:3.11-slim"},
        "spec": {"pip": ["NumPy>=2"], "apt": ["git"]},
        "verification": {"packages": {"numpy": "2.1.0", "six": "1"}, "imports": []},
        "worker": {},
        **fields,
    }
    catalogue.publish(str(sif), record)
    catalogue.point(record["build_digest"], record)
    return record


def published(root: Path, content: str, *tags: str, **fields: Any) -> dict[str, Any]:
    record = publish(root, content, **fields)
    for tag in tags:
        Catalogue(str(root)).tag(record["name"], tag, record, "now")
    return record


def grow_old(root: Path, record: dict[str, Any], age_s: float = 400 * DAY_S) -> None:
    """As if nobody had needed the image for so long."""
    catalogue = Catalogue(str(root))
    then = storage_time(str(root)) - age_s
    path = catalogue.record_path(record["name"], record["sha256"])
    os.utime(path, (then, then))
    use = Path(catalogue.uses, image_key(record["name"], record["sha256"]))
    if use.exists():
        os.utime(use, (then, then))


def key_of(record: dict[str, Any]) -> str:
    return image_key(record["name"], record["sha256"])


def ok(result: dict[str, Any]) -> dict[str, Any]:
    assert result["ok"] is True, result
    return result


def refused(result: dict[str, Any]) -> str:
    assert result["ok"] is False
    return str(result["error"]["code"])


def names_listed(**filters: Any) -> list[str]:
    return [row["name"] for row in ok(list_containers(**filters))["containers"]]


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


# -- retention ----------------------------------------------------------------------------------


def test_by_default_only_old_images_that_nothing_holds_go(site: Site) -> None:
    old = [publish(site.root, f"old {number}") for number in range(3)]
    tagged = published(site.root, "tagged", "v1")
    pinned = publish(site.root, "pinned")
    newest = publish(site.root, "newest", created_at="2026-02-01T00:00:00+00:00")
    young = publish(site.root, "young")
    ok(tag_container("pin", pinned["container_id"]))
    for record in (*old, tagged, pinned, newest):
        grow_old(site.root, record)
    foreseen = ok(collect_garbage())
    assert foreseen["dry_run"] is True
    assert ok(list_containers())["total"] == 7
    done = ok(collect_garbage(dry_run=False))
    assert done["images"] == foreseen["images"]
    assert done["images"]["count"] == 3
    left = {row["sha256"] for row in ok(list_containers())["containers"]}
    assert left == {r["sha256"] for r in (tagged, pinned, newest, young)}
    assert done["held"] == 2
    report = json.loads(Path(done["report_path"]).read_text())
    assert len(report["images"]) == 3


def test_over_the_size_cap_the_longest_unused_go_first(site: Site) -> None:
    records = [publish(site.root, str(number) * 100, f"n{number}") for number in range(5)]
    for age, record in enumerate(records):
        grow_old(site.root, record, (age + 1) * DAY_S)
    Catalogue(str(site.root)).tag("n4", "keep", records[4], "now")
    rules = {"max_bytes": 250, "keep_last": 0}
    done = ok(collect_garbage(dry_run=False, rules=rules))
    assert done["images"]["names"] == [
        f"{r['name']} {r['container_id']}" for r in (records[3], records[2], records[1])
    ]
    assert done["over_bytes"] == 0
    tight = ok(collect_garbage(dry_run=False, rules={"max_bytes": 50, "keep_last": 0}))
    assert tight["images"]["count"] == 1
    assert tight["over_bytes"] == 50  # the tag holds it


def test_an_image_that_has_just_lost_its_tag_counts_as_used_until_now(site: Site) -> None:
    first = published(site.root, "one", "latest")
    grow_old(site.root, first)
    published(site.root, "two", "latest", created_at="2026-02-01T00:00:00+00:00")
    assert ok(collect_garbage())["images"]["count"] == 0
    grow_old(site.root, first)
    assert ok(collect_garbage())["images"]["count"] == 1


def test_the_sites_rules_hold_and_options_go_over_them(site: Site) -> None:
    record = publish(site.root, "one")
    grow_old(site.root, record, 10 * DAY_S)
    site.set(retention={"max_age_s": 5 * DAY_S, "keep_last": 0})
    assert ok(collect_garbage())["images"]["count"] == 1
    assert ok(collect_garbage(rules={"max_age_s": None}))["images"]["count"] == 0
    assert ok(collect_garbage(rules={"keep_last": 1}))["images"]["count"] == 0
    for wrong in ({"max_age": 1}, {"keep_last": -1}, {"max_bytes": "1G"}, {"keep_last": True}):
        result = collect_garbage(rules=wrong)
        assert refused(result) == "site_invalid"
        assert next(iter(wrong)) in result["error"]["message"]


def test_the_trash_is_emptied_after_a_day_or_on_demand(site: Site) -> None:
    removed = [
        ok(remove_container(publish(site.root, text)["container_id"])) for text in ("one", "two")
    ]
    assert ok(collect_garbage(dry_run=False))["trash"]["count"] == 0
    then = storage_time(str(site.root)) - 2 * DAY_S
    os.utime(removed[0]["trash"], (then, then))
    done = ok(collect_garbage(dry_run=False))
    assert done["trash"] == {
        "count": 1,
        "bytes": done["trash"]["bytes"],
        "names": [removed[0]["trash"]],
    }
    assert done["trash"]["bytes"] > 3
    assert ok(collect_garbage(dry_run=False, empty_trash=True))["trash"]["count"] == 1
    assert list((site.root / "trash").iterdir()) == []


def test_old_runs_and_dead_work_areas_go_and_live_ones_stay(site: Site) -> None:
    now = storage_time(str(site.root))
    ages = {
        # run: (state, seconds of silence, has a work area)
        "00000000-0000-4000-8000-000000000001": ("finished", 60 * DAY_S, False),
        "00000000-0000-4000-8000-000000000002": ("finished", 1 * DAY_S, False),
        "00000000-0000-4000-8000-000000000003": ("running", 3600, True),
        "00000000-0000-4000-8000-000000000004": ("running", 5, True),
        "00000000-0000-4000-8000-000000000005": ("between", DAY_S, True),
    }
    for run_id, (state, silent_s, works) in ages.items():
        run = site.root / "runs" / run_id
        run.mkdir(parents=True)
        (run / "status.json").write_text(json.dumps({"state": state}))
        (run / "heartbeat").write_text("")
        for path in (run / "status.json", run / "heartbeat", run):
            os.utime(path, (now - silent_s, now - silent_s))
        if works:
            (site.root / "work" / run_id).mkdir(parents=True)
    ok(collect_garbage(dry_run=False))
    assert sorted(p.name[-1] for p in (site.root / "runs").iterdir()) == ["2", "3", "4", "5"]
    assert sorted(p.name[-1] for p in (site.root / "work").iterdir()) == ["4", "5"]


def test_a_large_engine_cache_is_emptied_when_no_build_may_read_it(site: Site) -> None:
    cache = site.root / "cache" / "apptainer" / "blob"
    cache.mkdir(parents=True)
    (cache / "layer").write_text("x" * 1000)
    other = site.root / "cache" / "stages"
    other.mkdir()
    rules = {"cache_bytes": 500}
    run_id = "00000000-0000-4000-8000-000000000001"
    (site.root / "work" / run_id).mkdir(parents=True)
    assert ok(collect_garbage(dry_run=False, rules=rules))["cache"]["count"] == 0
    (site.root / "work" / run_id).rmdir()
    assert ok(collect_garbage(dry_run=False))["cache"]["count"] == 0  # no such rule
    done = ok(collect_garbage(dry_run=False, rules=rules))
    assert done["cache"]["bytes"] == 1000
    assert [p.name for p in (site.root / "cache").iterdir()] == ["stages"]


# -- from the images alone ----------------------------------------------------------------------


def test_everything_but_the_images_can_be_made_anew(site: Site) -> None:
    first = published(site.root, "one", "v1")
    second = published(site.root, "two", "latest", name="other")
    for lost in ("tags", "builds", "history", "index.json"):
        path = site.root / lost
        if path.is_file():
            path.unlink()
        elif path.is_dir():
            for folder, _, names in os.walk(path, topdown=False):
                for name in names:
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)
    os.unlink(Catalogue(str(site.root)).record_path("other", second["sha256"]))
    done = ok(reindex_containers(min_age_s=0))
    assert done["containers"] == 2
    assert done["recovered"] == [second["path"]]
    for name, record in (("demo", first), ("other", second)):
        found = ok(list_containers(name))["container"]
        assert (found["container_id"], found["path"]) == (record["container_id"], record["path"])
    built = Catalogue(str(site.root)).built(first["build_digest"])
    assert built is not None
    assert built["sha256"] == first["sha256"]


def test_a_damaged_image_gets_no_record_and_a_lost_one_is_named(site: Site) -> None:
    damaged, lost = publish(site.root, "one"), publish(site.root, "two", "other")
    os.unlink(Catalogue(str(site.root)).record_path("demo", damaged["sha256"]))
    os.chmod(damaged["path"], 0o644)
    Path(damaged["path"]).write_text("0ne")
    os.unlink(lost["path"])
    done = ok(reindex_containers(min_age_s=0))
    assert (done["damaged"], done["missing"]) == ([damaged["path"]], [lost["path"]])
    (row,) = ok(list_containers())["containers"]
    assert row["image_is_missing"] is True


def test_an_image_that_is_being_registered_is_left_alone(site: Site) -> None:
    record = publish(site.root, "one")
    os.unlink(Catalogue(str(site.root)).record_path("demo", record["sha256"]))
    assert ok(reindex_containers())["recovered"] == []


# -- many hands ---------------------------------------------------------------------------------


def register_some(root: str, first: int, count: int) -> None:
    for number in range(first, first + count):
        # every second one is an image that a neighbour registers as well
        record = publish(Path(root), f"image {number // 2}", f"name{number % 3}")
        Catalogue(root).tag(record["name"], f"t{number}", record, "now")
        Catalogue(root).tag("common", "latest", record, "now")
        list_containers()


def claim(root: str, number: int, won: Callable[[int], None]) -> None:
    record = publish(Path(root), f"rival {number}", "rival")
    try:
        Catalogue(root).tag("rival", "only", record, "now", is_new=True)
    except StepFailed as failure:
        if failure.code != "already_exists":
            raise
    else:
        won(number)


def test_registrations_of_several_processes_lose_nothing(site: Site) -> None:
    spawn = multiprocessing.get_context("fork")
    workers = [
        spawn.Process(target=register_some, args=(str(site.root), first, 6))
        for first in range(0, 24, 6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    rows = ok(list_containers(limit=1000))["containers"]
    wanted = {(sha256_of(f"image {n // 2}"), f"name{n % 3}") for n in range(24)}
    assert {(row["sha256"], row["name"]) for row in rows} == wanted
    tags = Catalogue(str(site.root)).index.tags()
    assert sorted(t for name, found in tags.items() if name != "common" for t in found) == sorted(
        f"t{number}" for number in range(24)
    )
    assert not [p for p in site.root.rglob(".*") if p.is_file()]
    events = [e for n in range(3) for e in Catalogue(str(site.root)).events(f"name{n}")]
    assert sum(event["event"] == "tagged" for event in events) == 24


def test_of_many_who_claim_one_name_exactly_one_gets_it(site: Site) -> None:
    spawn = multiprocessing.get_context("fork")
    winners = spawn.SimpleQueue()
    workers = [
        spawn.Process(target=claim, args=(str(site.root), number, winners.put))
        for number in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    winner = winners.get()
    assert winners.empty()
    found = ok(list_containers("rival:only"))["container"]
    assert found["sha256"] == sha256_of(f"rival {winner}")


def test_who_holds_what(site: Site) -> None:
    record = published(site.root, "one", "v1")
    ok(tag_container("pin", "demo:v1", why="the paper"))
    catalogue = Catalogue(str(site.root))
    with leased(catalogue, "demo", record["sha256"], "a test"):
        found = holds(catalogue, storage_time(catalogue.root))[key_of(record)]
        assert [kind for kind, _ in found] == ["tag", "pin", "lease"]
    ok(tag_container("unpin", "demo:v1"))
    assert [kind for kind, _ in holds(catalogue, storage_time(catalogue.root))[key_of(record)]] == [
        "tag"
    ]


def keep_registering(root: str, worker: int, rounds: int) -> None:
    """Registers, tags and moves tags, while others remove what they can."""
    catalogue = Catalogue(root)
    for number in range(rounds):
        try:
            record = publish(Path(root), f"image {number % 4}", f"name{worker % 2}")
            catalogue.tag(record["name"], f"t{worker}", record, "now")
        except StepFailed as failure:
            # the image was removed before the tag could hold it: the build is told to start again
            if failure.code != "container_not_found":
                raise


def keep_removing(root: str, rounds: int) -> None:
    rules = {"max_bytes": 0, "keep_last": 0, "min_age_s": 0, "trash_age_s": 1e9}
    for _ in range(rounds):
        ok(collect_garbage(dry_run=False, rules=rules))


def test_what_a_tag_holds_survives_any_timing_of_removals(site: Site) -> None:
    fork = multiprocessing.get_context("fork")
    root = str(site.root)
    workers = [fork.Process(target=keep_registering, args=(root, n, 40)) for n in range(4)]
    workers += [fork.Process(target=keep_removing, args=(root, 40)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    catalogue = Catalogue(root)
    assert list((site.root / "trash").iterdir()), "the removals met the registrations"
    for name, tags in catalogue.index.tags().items():
        for tag in tags:
            found = ok(list_containers(f"{name}:{tag}"))["container"]
            assert Path(found["path"]).read_text().startswith("image ")
    assert [row["path"] for row in catalogue.rows() if not row["present"]] == []
