"""What fetching and locked builds leave at a site goes with ``containers gc``, once nobody can want it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cib_flows.functions._shared.holds import storage_time
from cib_flows.functions._shared.lock_files import keep_lock
from cib_flows.functions.collect_garbage import collect_garbage
from tests.functions.conftest import Site
from tests.functions.test_lock import lock_of

DAY_S = 24 * 3600


def grow_old(root: Path, path: Path, age_s: float) -> None:
    then = storage_time(str(root)) - age_s
    os.utime(path, (then, then))


def collected(**asked: Any) -> dict[str, Any]:
    result = collect_garbage(**asked)
    assert result["ok"], result
    return result


def test_an_image_that_was_fetched_and_never_registered_goes_after_a_day(site: Site) -> None:
    incoming = site.root / "incoming"
    incoming.mkdir(parents=True)
    abandoned, arriving = incoming / "abandoned.sif", incoming / "arriving.sif"
    for image in (abandoned, arriving):
        image.write_bytes(b"x" * 1000)
    grow_old(site.root, abandoned, 2 * DAY_S)

    foreseen = collected()
    assert foreseen["incoming"] == {"count": 1, "bytes": 1000, "names": [str(abandoned)]}
    assert abandoned.exists()
    assert collected(dry_run=False)["incoming"] == foreseen["incoming"]
    assert list(incoming.iterdir()) == [arriving]
    assert collected(rules={"incoming_age_s": 0})["incoming"]["count"] == 1


def test_a_lock_goes_with_the_runs_of_its_age_and_one_sent_again_is_young(site: Site) -> None:
    root = str(site.root)
    paths = []
    for locked in (lock_of(conda=[]), lock_of(debian=[])):
        sha256 = keep_lock(root, locked)
        paths.append(site.root / "locks" / f"{sha256}.json")
        grow_old(site.root, paths[-1], 60 * DAY_S)
    keep_lock(root, lock_of(debian=[]))  # for a run that is about to ask for it

    assert collected(dry_run=False)["locks"]["names"] == [str(paths[0])]
    assert [path.exists() for path in paths] == [False, True]


def test_a_cache_that_a_killed_gc_had_put_aside_goes_with_the_trash(site: Site) -> None:
    aside = site.root / "trash" / "cache-1-00000000"
    aside.mkdir(parents=True)
    (aside / "layer").write_bytes(b"x" * 500)
    grow_old(site.root, aside, 2 * DAY_S)
    assert collected(dry_run=False)["trash"]["bytes"] == 500
    assert not aside.exists()
