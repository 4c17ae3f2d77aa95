"""Several processes at work in one catalogue."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.holds import holds, leased, storage_time
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions.collect_garbage import collect_garbage
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.tag_container import tag_container

from .catalogues import key_of, ok, publish, published, sha256_of
from .conftest import Site


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


def keep_removing(root: str, rounds: int, empty_trash: bool) -> None:
    rules = {"max_bytes": 0, "keep_last": 0, "min_age_s": 0, "trash_age_s": 1e9}
    for _ in range(rounds):
        ok(collect_garbage(dry_run=False, rules=rules, empty_trash=empty_trash))


@pytest.mark.parametrize("empty_trash", [False, True])
def test_what_a_tag_holds_survives_any_timing_of_removals(site: Site, empty_trash: bool) -> None:
    """Two gcs at once, which may also delete the trash at once, beside four that register."""
    fork = multiprocessing.get_context("fork")
    root = str(site.root)
    workers = [fork.Process(target=keep_registering, args=(root, n, 40)) for n in range(4)]
    removing = (root, 40, empty_trash)
    workers += [fork.Process(target=keep_removing, args=removing) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    catalogue = Catalogue(root)
    events = [e["event"] for name in ("name0", "name1") for e in catalogue.events(name)]
    assert "removed" in events, "the removals met the registrations"
    for name, tags in catalogue.index.tags().items():
        for tag in tags:
            found = ok(list_containers(f"{name}:{tag}"))["container"]
            assert Path(found["path"]).read_text().startswith("image ")
    assert [row["path"] for row in catalogue.rows() if not row["present"]] == []
