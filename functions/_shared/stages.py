"""Finished environments kept for the next build that asks for them and perhaps for more.

A stage is an image of a recipe's environment (base, Debian, conda and Python packages), without payload and
commands. It may serve a build only if everything in it was asked for by that build too: the same ground
(base, engine, machine, Debian and conda packages, recipe template) and a subset of its Python requirements.
The pip phase then resolves anew and makes the environment exactly what it resolved, so an image made from a
stage holds what an image made from nothing would. Stages are copied for each use, and the copy is checked against
their sha256.
"""

from __future__ import annotations

import os
import time
from typing import Any

from .files import (
    canonical_json,
    copy_file,
    read_json,
    remove_tree,
    sha256_text,
    write_json,
    write_text,
)
from .payload_asks import asked_of
from .recipe import environment_text, requirements_of


class Stage:
    """A kept environment: its image, and the Python requirements that are in it."""

    def __init__(self, image: str, sha256: str, requirements: list[str], size: int) -> None:
        self.image = image
        self.sha256 = sha256
        self.requirements = requirements
        self.size = size


class Stages:
    """The stages of one root, bounded in bytes and age."""

    def __init__(self, root: str, limit_bytes: int, max_age_s: float) -> None:
        self.folder = os.path.join(root, "cache", "stages")
        self.limit_bytes = limit_bytes
        self.max_age_s = max_age_s

    def best(self, ground: str, requirements: list[str]) -> Stage | None:
        """The stage of ``ground`` with the most of ``requirements`` and nothing else; see :meth:`take`."""
        asked = set(requirements)
        found: list[tuple[int, str, dict[str, Any]]] = []
        for path, about in self._entries():
            if about["ground"] == ground and set(about["requirements"]) <= asked:
                found.append((len(about["requirements"]), path, about))
        for _, path, about in sorted(found, key=lambda entry: entry[0], reverse=True):
            image = path[: -len(".json")] + ".sif"
            if time.time() - about["made_at"] < self.max_age_s and os.path.exists(image):
                return Stage(image, about["sha256"], about["requirements"], about["bytes"])
            self._remove(path)
        return None

    def take(self, stage: Stage, folder: str) -> Stage | None:
        """A copy of a kept stage in the build's own ``folder``; None for one that is not what was kept, which
        is removed.

        A build never starts from the kept file itself: the engine leaves it open, so that a recipe's commands
        could write to it, and with it to what others build from or use.
        """
        own = os.path.join(folder, f"from-{stage.sha256[:16]}.sif")
        path = stage.image[: -len(".sif")] + ".json"
        try:
            sound = copy_file(stage.image, own) == stage.sha256
        except FileNotFoundError:
            sound = False
        if not sound:
            remove_tree(own)
            self._remove(path)
            return None
        try:
            os.utime(path)
        except OSError:
            pass  # trimmed meanwhile
        return Stage(own, stage.sha256, stage.requirements, stage.size)

    def keep(self, image: str, sha256: str, ground: str, requirements: list[str]) -> Stage | None:
        """Keep ``image`` (by a second name, not a copy); None where the file system has no hard links."""
        name = _name_of(ground, requirements)
        path = os.path.join(self.folder, f"{name}.json")
        kept = os.path.join(self.folder, f"{name}.sif")
        size = os.path.getsize(image)
        if self.limit_bytes <= 0 or size > self.limit_bytes:
            return None
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        aside = f"{kept}.{os.getpid()}"
        try:
            os.link(image, aside)
            os.replace(aside, kept)
        except OSError:
            return None
        about = {
            "ground": ground,
            "requirements": sorted(requirements),
            "sha256": sha256,
            "bytes": size,
            "made_at": time.time(),
        }
        write_json(path, about, 0o600)
        self.trim()
        return Stage(kept, sha256, requirements, size)

    def is_wanted_again(self, ground: str, requirements: list[str]) -> bool:
        """Whether this environment was asked for before, so that it is worth a build of its own to keep it.

        An environment that adds a little to a kept one is soon made; the next spec may well ask for another.
        The first request is noted and answered with False.
        """
        note = os.path.join(self.folder, f"{_name_of(ground, requirements)}.wanted")
        try:
            asked_before = time.time() - os.path.getmtime(note) < self.max_age_s
        except OSError:
            asked_before = False
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        write_text(note, "")
        return asked_before

    def trim(self) -> None:
        """Remove the longest unused stages until the rest fit the limit, and notes that are too old to count."""
        for path in self._named(".wanted"):
            try:
                if time.time() - os.path.getmtime(path) >= self.max_age_s:
                    os.unlink(path)
            except OSError:
                continue
        entries = []
        for path, about in self._entries():
            try:
                entries.append((os.path.getmtime(path), path, int(about["bytes"])))
            except OSError:
                continue
        total = sum(size for _, _, size in entries)
        for _, path, size in sorted(entries):
            if total <= self.limit_bytes:
                return
            self._remove(path)
            total -= size

    def _entries(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for path in self._named(".json"):
            try:
                about = read_json(path)
                known = {"ground", "requirements", "sha256", "bytes", "made_at"} <= about.keys()
            except (OSError, ValueError, AttributeError):
                known = False
            if known:
                found.append((path, about))
        return found

    def _named(self, ending: str) -> list[str]:
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return [os.path.join(self.folder, name) for name in names if name.endswith(ending)]

    def _remove(self, path: str) -> None:
        for name in (path, path[: -len(".json")] + ".sif"):
            try:
                os.unlink(name)
            except OSError:
                pass


def _name_of(ground: str, requirements: list[str]) -> str:
    return sha256_text(canonical_json([ground, sorted(requirements)]))


def ground_of(spec: dict[str, Any], plan: dict[str, Any]) -> str:
    """Digest of what a stage stands on: everything but the Python requirements themselves."""
    bare = {**spec, "pip": []}
    text = environment_text(bare, {"cib-flows-worker": ""} if plan["worker"] else None)
    asked = {key: asked_of(plan)[key] for key in ("apt", "conda", "channels", "indexes")}
    # a library's image has no digest, and then its name has to do
    base = plan["base"]["digest"] or plan["base"]["resolved"]
    builder = plan.get("spack_builder")
    return sha256_text(
        canonical_json([text, base, builder, plan["engine"], plan["machine"], asked])
    )


def requirements_in(spec: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """The Python requirements of a build as its stages name them."""
    return sorted({*requirements_of(spec, plan["worker"]), *asked_of(plan)["pip"]})
