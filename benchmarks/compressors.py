"""How long packing an image takes with each compressor, and how large it gets: why the default is what it is.

    python benchmarks/compressors.py IMAGE.sif [--rounds 3] [--json OUT]

Unpacks the image once, in memory, and packs it again with each compressor in turn, with as many processors as
a build would use. Apptainer's own default is gzip at level 9. Times are seconds, sizes megabytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from cib_flows.functions._shared.places import processors
from cib_flows.functions._shared.sif import squash_partition

COMPRESSORS: dict[str, list[str]] = {
    "gzip 9": ["-comp", "gzip", "-Xcompression-level", "9"],
    **{f"zstd {n}": ["-comp", "zstd", "-Xcompression-level", str(n)] for n in (1, 2, 3, 4, 6, 9)},
}


def unpacked(image: Path, folder: Path) -> Path:
    """The image's tree, below ``folder``."""
    tree = folder / "tree"
    partition = squash_partition(str(image))
    if partition is None:
        raise SystemExit(f"{image} is no SIF with a squashfs in it.")
    offset = str(partition.offset)
    command = ["unsquashfs", "-quiet", "-no-progress", "-ignore-errors", "-offset", offset]
    subprocess.run([*command, "-dest", str(tree), str(image)], check=True, capture_output=True)
    return tree


def packing(tree: Path, folder: Path, words: list[str]) -> tuple[float, int]:
    """Seconds, and bytes of what came out."""
    packed = folder / "packed"
    command = ["mksquashfs", str(tree), str(packed), "-noappend", "-quiet", "-no-progress"]
    started = time.monotonic()
    subprocess.run(
        [*command, *words, "-processors", str(processors()), "-all-root"],
        check=True,
        capture_output=True,
    )
    seconds = time.monotonic() - started
    size = packed.stat().st_size
    packed.unlink()
    return seconds, size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in COMPRESSORS}
    with tempfile.TemporaryDirectory(prefix="cib-bench-", dir="/dev/shm") as name:
        tree = unpacked(asked.image, Path(name))
        for _ in range(asked.rounds):
            for kind, words in COMPRESSORS.items():
                seconds, size = packing(tree, Path(name), words)
                found[kind]["seconds"].append(seconds)
                found[kind]["bytes"] = size
    for kind, figures in found.items():
        times = figures["seconds"]
        print(
            f"{kind:8s} {statistics.median(times):6.2f} s ({min(times):.2f} to {max(times):.2f})"
            f"  {figures['bytes'] / 1e6:7.1f} MB"
        )
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
