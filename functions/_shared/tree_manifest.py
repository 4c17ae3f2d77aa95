"""Comparing what two images hold, file by file, without running either."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from typing import Any

from .files import remove_tree, sha256_file
from .results import StepFailed
from .sif import SquashPartition
from .squash_listing import ListedFile, list_image

UNPACK_LIMIT_S = 3600
# Left out of a comparison: (pattern of whole paths, why)
LEFT_OUT: list[tuple[str, str]] = [
    (r"/\.singularity\.d/labels\.json", "holds the time of the build"),
    (
        r"/\.singularity\.d/(Singularity|bootstrap_history(/.*)?)",
        "the recipe, which is compared by itself",
    ),
    (r"/var/log/.*", "tells when packages were installed"),
    (r"/var/cache/(apt|ldconfig|debconf|man)/.*", "caches that packages make anew"),
    (r"/var/lib/(dpkg|apt)/.*-old", "a package manager's copy of its state before the last change"),
    (r".*/__pycache__(/.*)?", "compiled Python, which holds the time of its source"),
    (r"/etc/(resolv\.conf|hosts|hostname|mtab|machine-id)", "of the host that built"),
    (
        r"/opt/cib/(requirements|debian)\.lock",
        "the lock that was installed, written in another way",
    ),
]


class Entry:
    """One path: its kind, mode, owner, size or link target, and for a file the sha256 once it was read."""

    def __init__(self, listed: ListedFile) -> None:
        path, arrow, target = (
            listed.path.partition(" -> ") if listed.mode[0] == "l" else (listed.path, "", "")
        )
        self.path = path
        self.mode = listed.mode
        self.owner = f"{listed.uid}:{listed.gid}"
        self.size = listed.size if listed.mode[0] not in "dl" else ""
        self.target = target if arrow else ""
        self.sha256 = ""

    def shape(self) -> tuple[str, str, str, str]:
        return self.mode, self.owner, self.size, self.target


def left_out(path: str) -> str | None:
    """Why a path takes no part in a comparison; None for one that does."""
    for pattern, why in LEFT_OUT:
        if re.fullmatch(pattern, path):
            return why
    return None


def entries_of(image: str, partition: SquashPartition) -> dict[str, Entry]:
    """Path -> entry of all that takes part. Raises :class:`StepFailed` where the node cannot read the image."""
    listing = list_image(image, partition)
    if listing is None:
        raise StepFailed(
            "image_unreadable",
            f"unsquashfs cannot list {image} on this node.",
            "Ask the endpoint's administrator for squashfs-tools 4.5 or newer.",
        )
    entries = (Entry(listed) for listed in listing)
    return {entry.path: entry for entry in entries if left_out(entry.path) is None}


def digest_files(
    image: str, partition: SquashPartition, entries: list[Entry], scratch: str
) -> None:
    """Fill in the sha256 of regular files, from a copy that is unpacked in ``scratch`` and removed again."""
    place = os.path.join(scratch, "tree")
    command = ["-no-progress", "-no-xattrs", "-ignore-errors", "-o", str(partition.offset)]
    program = shutil.which("unsquashfs") or "unsquashfs"
    try:
        # devices cannot be made by an ordinary user, which counts as an error that is not fatal
        unpacked = subprocess.run(
            [program, *command, "-d", place, image],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=UNPACK_LIMIT_S,
            check=False,
        )
        for entry in entries:
            path = place + entry.path
            try:
                entry.sha256 = sha256_file(path)
            except PermissionError:
                os.chmod(path, stat.S_IRUSR)
                entry.sha256 = sha256_file(path)
            except FileNotFoundError:
                raise StepFailed(
                    "disk_full" if b"No space" in unpacked.stderr else "image_unreadable",
                    f"{image} could not be unpacked to compare its files.",
                    "Make room in the endpoint's temporary folder.",
                    log_tail=unpacked.stderr[-4000:].decode("utf-8", "replace"),
                ) from None
    finally:
        remove_tree(place)


def differences(first: dict[str, Entry], second: dict[str, Entry]) -> list[dict[str, Any]]:
    """What differs between two trees whose common files of one size were digested."""
    found: list[dict[str, Any]] = []
    for path in sorted(first.keys() | second.keys()):
        one, two = first.get(path), second.get(path)
        if one is None or two is None:
            found.append({"path": path, "what": "added" if one is None else "removed"})
        elif one.shape() != two.shape():
            names = ("mode", "owner", "size", "target")
            pairs = zip(names, one.shape(), two.shape(), strict=True)
            changed = [f"{name} {was} became {now}" for name, was, now in pairs if was != now]
            found.append({"path": path, "what": ", ".join(changed)})
        elif one.sha256 != two.sha256:
            found.append({"path": path, "what": "content"})
    return found
