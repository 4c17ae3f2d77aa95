"""What gc takes away, and what it never does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cib_flows.functions._shared import removal
from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.holds import storage_time
from cib_flows.functions.collect_garbage import collect_garbage
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.remove_container import remove_container
from cib_flows.functions.tag_container import tag_container

from .catalogues import DAY_S, grow_old, key_of, ok, publish, published, refused
from .conftest import Site


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


def test_what_a_job_still_runs_from_is_not_deleted_from_the_trash(site: Site) -> None:
    records = [publish(site.root, text) for text in ("in use", "idle")]
    places = [Path(ok(remove_container(r["container_id"]))["trash"]) for r in records]
    # a job whose node was cut off for a while beats again
    lease = site.root / "leases" / key_of(records[0]) / "job"
    lease.parent.mkdir(parents=True)
    lease.write_text("{}")
    assert ok(collect_garbage(empty_trash=True))["trash"]["count"] == 1
    ok(collect_garbage(dry_run=False, empty_trash=True))
    assert [place.exists() for place in places] == [True, False]
    assert (places[0] / f"{records[0]['sha256']}.sif").read_text() == "in use"
    lease.unlink()
    ok(collect_garbage(dry_run=False, empty_trash=True))
    assert list((site.root / "trash").iterdir()) == []


def test_an_image_that_was_tagged_as_it_was_removed_is_put_back(site: Site) -> None:
    """An NFS client may learn of another's tag a minute late."""
    record = publish(site.root, "one")
    ok(remove_container(record["container_id"]))
    pointer = {key: record[key] for key in ("container_id", "name", "sha256")}
    tag = site.root / "tags" / "demo" / "mine.json"
    tag.parent.mkdir(parents=True)
    tag.write_text(json.dumps(pointer))
    assert refused(list_containers("demo:mine")) == "container_not_found"
    ok(collect_garbage(empty_trash=True))  # which only looks
    ok(collect_garbage(dry_run=False, empty_trash=True))
    found = ok(list_containers("demo:mine"))["container"]
    assert Path(found["path"]).read_text() == "one"
    assert list((site.root / "trash").iterdir()) == []
    events = ok(list_containers(history="demo"))["events"]
    assert [event["event"] for event in events] == ["put back", "removed", "registered"]


def test_the_trash_of_an_image_that_was_registered_anew_is_deleted(site: Site) -> None:
    ok(remove_container(publish(site.root, "one")["container_id"]))
    published(site.root, "one", "v1")
    ok(collect_garbage(dry_run=False, empty_trash=True))
    assert list((site.root / "trash").iterdir()) == []
    assert ok(list_containers("demo:v1"))


def test_a_removal_that_was_killed_half_way_is_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = publish(site.root, "one")

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(removal, "_move_files", die)
        with pytest.raises(Killed):
            remove_container(record["container_id"])
    assert ok(list_containers())["total"] == 0
    # one that may still be under way is left alone
    ok(collect_garbage(dry_run=False, empty_trash=True))
    (place,) = (site.root / "trash").iterdir()
    then = storage_time(str(site.root)) - 2 * 3600
    os.utime(place, (then, then))
    ok(collect_garbage(dry_run=False))
    assert ok(list_containers())["containers"][0]["sha256"] == record["sha256"]
    assert list((site.root / "trash").iterdir()) == []


def test_a_file_that_vanishes_meanwhile_makes_no_image_look_old(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registrations write aside and rename, in the very folder that gc is reading."""
    for text in ("one", "two"):
        record = publish(site.root, text)
    (site.root / "images" / "demo" / ".aside").write_text("")
    lstat = os.lstat

    def gone(path: str) -> os.stat_result:
        if os.path.basename(path) == ".aside":
            raise FileNotFoundError(2, "No such file or directory", path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", gone)
    assert ok(collect_garbage(rules={"keep_last": 0}))["images"]["count"] == 0
    assert record["name"] == "demo"


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


def test_leases_of_killed_jobs_do_not_pile_up(site: Site) -> None:
    record = published(site.root, "one", "v1")
    folder = site.root / "leases" / key_of(record)
    folder.mkdir(parents=True)
    old, new = folder / "job-old", folder / "job-new"
    for path in (old, new):
        path.write_text("{}")
    then = storage_time(str(site.root)) - 2 * DAY_S
    os.utime(old, (then, then))
    ok(collect_garbage())
    assert old.exists()
    ok(collect_garbage(dry_run=False))
    assert (old.exists(), new.exists()) == (False, True)
