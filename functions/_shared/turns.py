"""Who builds, when several runs want the same image, or more builds than the site allows.

A turn is a file made by ``O_EXCL`` in a folder of the root that names the run which has it. It only saves
work: two holders are harmless, since images are published under their content's digest. Whether a holder
lives is read from its run folder's heartbeat, against the time of a file that the asking run has just
written on the same file system; no process id and no host's clock is trusted.
"""

from __future__ import annotations

import os
import time
from typing import Any

from .catalogue import Catalogue
from .files import write_text
from .run_folder import RUN_ID, RunFolder
from .working import DEAD_AFTER_S

# A batch queue may stand between two steps of a run that lives, or somebody has cancelled it there and nobody will
# come back. Who waits gives up after the site's limit for a build, so this must be well below that.
BETWEEN_STEPS_S = 3600
WRITING_S = 60  # a turn without a name in it is being written, on storage however slow


class Turns:
    """The turns of one root, as one run sees them."""

    def __init__(self, root: str, asking: RunFolder) -> None:
        self.root = root
        self.asking = asking
        self.builds = os.path.join(root, "turns", "builds")
        self.slots = os.path.join(root, "turns", "slots")

    def take_build(self, build_digest: str) -> str | None:
        """Take the turn to build ``build_digest``; returns the run that has it instead, or None when taken."""
        return self._take(os.path.join(self.builds, build_digest))

    def release(self, build_digest: str | None) -> None:
        """Give back what this run holds."""
        self.release_slots()
        if build_digest:
            self._release(os.path.join(self.builds, build_digest))

    def release_slots(self) -> None:
        """Let another build begin; the turn for the image itself is kept until it is registered."""
        try:
            names = os.listdir(self.slots)
        except OSError:
            return
        for name in names:
            self._release(os.path.join(self.slots, name))

    def _release(self, path: str) -> None:
        if self._holder(path) == self.asking.run_id:
            _give_back(path)

    def take_slot(self, most: int) -> bool:
        """Take one of ``most`` places for builds at once; False while all are held by runs that live."""
        places = [os.path.join(self.slots, f"slot-{number}") for number in range(most)]
        # whoever asks again after its node died may find its own behind one that is free by now
        if any(self._holder(place) == self.asking.run_id for place in places):
            return True
        return any(self._take(place) is None for place in places)

    def _take(self, path: str) -> str | None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        for _ in range(5):
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                holder = self._holder(path)
                if holder == self.asking.run_id:
                    return None
                if self._lives(holder) if holder else self._is_being_written(path):
                    return holder or "another run"
                self._clear(path, holder)
                continue
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(self.asking.run_id)
                stream.flush()
                os.fsync(stream.fileno())
            return None
        return self._holder(path) or "another run"

    def _clear(self, path: str, dead: str) -> None:
        """Take away the turn of a ``dead`` holder, and no other's."""
        aside = f"{path}.{self.asking.run_id}"
        try:
            os.rename(path, aside)
            if self._holder(aside) != dead:
                # somebody else was quicker, and this is theirs
                os.link(aside, path)
        except OSError:
            pass  # gone already, or taken by a third
        _give_back(aside)

    def _holder(self, path: str) -> str:
        """The run that a turn's file names; empty while it is being written or when it is gone."""
        for _ in range(10):
            try:
                with open(path, encoding="utf-8") as stream:
                    text = stream.read(64).strip()
            except OSError:
                return ""
            if RUN_ID.fullmatch(text):
                return text
            time.sleep(0.02)
        return ""

    def _lives(self, run_id: str) -> bool:
        other = RunFolder(self.root, run_id)
        if other.has("result.json") or other.is_aborted():
            return False
        now = self._now()
        try:
            age = now - os.path.getmtime(os.path.join(other.path, "heartbeat"))
        except OSError:
            return False
        try:
            state = other.read("status.json")["state"]
        except (OSError, ValueError, KeyError):
            # replaced every second, which on NFS its readers may notice; the heartbeat says enough
            state = "running"
        if state == "finished":
            return False
        return bool(age < (DEAD_AFTER_S if state == "running" else BETWEEN_STEPS_S))

    def _is_being_written(self, path: str) -> bool:
        try:
            return self._now() - os.path.getmtime(path) < WRITING_S
        except OSError:
            return False

    def _now(self) -> float:
        """The time by the shared file system's own clock."""
        heartbeat = os.path.join(self.asking.path, "heartbeat")
        write_text(heartbeat, "")
        return os.path.getmtime(heartbeat)


def ask_for_turn(
    turns: Turns, catalogue: Catalogue, plan: dict[str, Any], most_builds: int | None
) -> tuple[str, dict[str, Any] | None]:
    """Whether this run may build now: ``("", None)`` when it may, ``(why not, None)`` when it has to come
    again, ``("", record)`` when another run has made the container meanwhile.

    It never waits itself: a waiting task would hold the worker that the other run's next step needs.
    ``most_builds`` is the site's cap on builds at once.
    """
    holder = turns.take_build(plan["build_digest"])
    if holder is not None:
        # not the whole id of what may be another user's run: with it one can watch and abort that build
        named = f"run {holder[:8]}…" if RUN_ID.fullmatch(holder) else holder
        return f"waiting for {named}, which builds the same image", None
    if not plan["force"]:
        record = catalogue.built(plan["build_digest"])
        if record is not None:
            turns.release(plan["build_digest"])
            return "", record
    if most_builds is not None and not turns.take_slot(most_builds):
        turns.release(plan["build_digest"])
        return f"waiting: {most_builds} builds are under way, and the site allows no more", None
    return "", None


def _give_back(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
