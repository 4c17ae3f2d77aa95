"""The catalogue made anew from the images alone."""

from __future__ import annotations

import os
from pathlib import Path

from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.reindex_containers import reindex_containers

from .catalogues import ok, publish, published
from .conftest import Site


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
