"""How long the catalogue takes as it grows: list, resolve, gc, and many registrations at once.

    python benchmarks/catalogue.py [--records 10000] [--json FILE]

Records are as large as real ones (a recipe, a spec, 60 packages); images are a few bytes, since none of
these verbs opens one. Everything happens in a temporary folder, through the registered functions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cib_flows.functions._shared.catalogue import Catalogue, container_id_of
from cib_flows.functions.collect_garbage import collect_garbage
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.reindex_containers import reindex_containers
from cib_flows.functions.tag_container import tag_container

PACKAGES = {f"package-{number}": f"{number}.2.1" for number in range(60)}
RECIPE = "\n".join(f"line {number} of a recipe as long as those of builds" for number in range(150))


def record_of(root: str, number: int, name: str) -> dict[str, Any]:
    sha256 = hashlib.sha256(f"image {number}".encode()).hexdigest()
    return {
        "record_version": 1,
        "container_id": container_id_of(sha256),
        "name": name,
        "first_tag": "latest",
        "path": os.path.join(root, "images", name, f"{sha256}.sif"),
        "sha256": sha256,
        "bytes": 100_000_000 + number,
        "created_at": f"2026-01-{1 + number % 28:02d}T00:00:00+00:00",
        "spec": {"name": name, "pip": ["package-1>=1", "package-2"], "apt": ["git"], "conda": []},
        "build_digest": hashlib.sha256(f"build {number}".encode()).hexdigest(),
        "base": {"image": "python:3.11-slim"},
        "worker": {"globus-compute-endpoint": "4.19.0", "parsl": "2026.1.5"},
        "verification": {"python": "3.11.2", "packages": PACKAGES, "imports": list(PACKAGES)},
        "recipe": RECIPE,
    }


def fill(root: str, first: int, last: int, names: int) -> None:
    """Records written straight to their places: what is measured comes after."""
    for number in range(first, last):
        record = record_of(root, number, f"image-{number % names}")
        folder = Path(root, "images", record["name"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{record['sha256']}.sif").write_bytes(b"x")
        (folder / f"{record['sha256']}.json").write_text(json.dumps(record, indent=2))
        if number % 3 == 0:
            tags = Path(root, "tags", record["name"])
            tags.mkdir(parents=True, exist_ok=True)
            pointer = {key: record[key] for key in ("container_id", "name", "sha256")}
            (tags / f"v{number}.json").write_text(json.dumps(pointer))


def timed(call: Callable[[], dict[str, Any]], times: int = 3) -> tuple[float, dict[str, Any]]:
    best, result = float("inf"), {}
    for _ in range(times):
        begun = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - begun)
        assert result["ok"], result
    return best, result


def measure(root: str, records: int) -> dict[str, Any]:
    """Seconds of each verb at this many records; the best of three, and the first list without an index."""
    index = Path(root, "index.json")
    index.unlink(missing_ok=True)
    cold, _ = timed(list_containers, 1)
    # folders that changed within the last two seconds are read again: let them come to rest
    time.sleep(2.1)
    list_containers()
    some = record_of(root, records // 2, "image-1")
    verbs: dict[str, Callable[[], dict[str, Any]]] = {
        "list_12": list_containers,
        "list_1000": lambda: list_containers(limit=1000),
        "list_by_package": lambda: list_containers(package="package-1==1.2.1", name="image-1*"),
        "resolve_tag": lambda: list_containers("image-0:v0"),
        "resolve_id": lambda: list_containers(some["container_id"][:13]),
        "gc_dry_run": lambda: collect_garbage(rules={"max_bytes": 10**11, "min_age_s": 0}),
    }
    row: dict[str, Any] = {"records": records, "list_without_index": round(cold, 4)}
    row.update({name: round(timed(call)[0], 4) for name, call in verbs.items()})
    number = iter(range(10**9, 2 * 10**9))

    def one_more() -> dict[str, Any]:
        register(root, next(number), "image-1")
        return list_containers("image-1:benchmark")

    row["register_and_resolve"] = round(timed(one_more)[0], 4)
    row["tag"] = round(timed(lambda: tag_container("move", "image-0:v0", "moved"))[0], 4)
    row["index_mb"] = round(index.stat().st_size / 1e6, 2)
    return row


def register(root: str, number: int, name: str) -> None:
    record = record_of(root, number, name)
    sif = Path(root, f"new-{os.getpid()}-{number}")
    sif.write_bytes(b"x")
    catalogue = Catalogue(root)
    catalogue.publish(str(sif), record)
    catalogue.point(record["build_digest"], record)
    catalogue.tag(name, "benchmark", record, "now")


def register_many(root: str, first: int, count: int) -> None:
    for number in range(first, first + count):
        register(root, number, f"image-{number % 7}")


def at_once(root: str, processes: int, each: int) -> dict[str, Any]:
    """Registrations of several processes at once; every one of them must be found afterwards."""
    before = list_containers()["total"]
    workers = [
        multiprocessing.Process(target=register_many, args=(root, 5_000_000 + n * each, each))
        for n in range(processes)
    ]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - begun
    found = list_containers()["total"] - before
    return {
        "processes": processes,
        "registrations": processes * each,
        "found": found,
        "seconds": round(took, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--names", type=int, default=200)
    parser.add_argument("--folder", help="on the file system to measure; default: temporary")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    curve = [n for n in (10, 100, 1000, 10_000, 100_000) if n < options.records]
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        root = os.path.join(place, "root")
        os.mkdir(root)
        site = Path(place, "site.json")
        site.write_text(json.dumps({"root": root}))
        os.environ["CIB_FLOWS_SITE"] = str(site)
        rows, filled = [], 0
        for count in (*curve, options.records):
            fill(root, filled, count, options.names)
            filled = count
            rows.append(measure(root, count))
        for key in rows[0]:
            print(f"{key:22s}" + "".join(f"{row[key]:>12}" for row in rows))
        crowd = at_once(root, 10, 5)
        print(f"\n{crowd['registrations']} registrations by {crowd['processes']} processes at once:"
              f" {crowd['seconds']} s, {crowd['found']} found")  # fmt: skip
        rebuild, _ = timed(lambda: reindex_containers(min_age_s=0), 1)
        rules = {"max_bytes": 0, "keep_last": 0, "min_age_s": 0}
        sweep, swept = timed(lambda: collect_garbage(dry_run=False, rules=rules), 1)
        print(f"reindex of {filled} records: {rebuild:.2f} s")
        print(f"gc that removes {swept['images']['count']} images: {sweep:.2f} s")
        memory_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        print(f"most memory: {memory_mb} MB")
        if options.json:
            figures = {
                "curve": rows,
                "at_once": crowd,
                "reindex_s": round(rebuild, 3),
                "gc_s": round(sweep, 3),
                "gc_removed": swept["images"]["count"],
                "memory_mb": memory_mb,
            }
            Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    if crowd["found"] != crowd["registrations"]:
        sys.exit("registrations were lost")


if __name__ == "__main__":
    main()
