"""Where one run keeps its things, on the storage that all of the endpoint's nodes share.

``runs/<run_id>/`` stays after the run (spec, recipe, log, status, results); ``work/<run_id>/`` holds the
payload and the unpublished image, and is always removed.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

from .files import read_json, remove_tree, sha256_file, tail_of, write_json
from .results import StepFailed
from .status_page import PAGE_LOG_CHARS, UNSET, notification, status_page, write_quickly

# sha256 of the bundle that runs; the last line of every bundle says it.
BUNDLE_SHA256 = ""
RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class RunFolder:
    """The paths of one run below a site's root."""

    def __init__(self, root: str, run_id: str) -> None:
        if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
            raise StepFailed(
                "run_not_found", f"The run id {str(run_id)[:60]!r} is not a UUID in lower case."
            )
        self.run_id = run_id
        self.root = root
        self.path = os.path.join(root, "runs", run_id)
        self.work = os.path.join(root, "work", run_id)
        self.recipe = os.path.join(self.path, "image.def")
        self.log = os.path.join(self.path, "build.log")
        self.status = os.path.join(self.path, "status.json")
        self.abort = os.path.join(self.path, "ABORT")
        self.image = os.path.join(self.work, "image.sif")
        self.payload = os.path.join(self.work, "payload")
        self.base = os.path.join(self.work, "base")  # one that came with the payload

    def create(self) -> None:
        """Make the run's folders; the work area is private, since a payload may be."""
        os.makedirs(self.path, mode=0o755, exist_ok=True)
        os.makedirs(self.work, mode=0o700, exist_ok=True)
        if not self.has("result.txt"):
            write_quickly(os.path.join(self.path, "result.txt"), UNSET)

    def require(self) -> None:
        """Raise unless an earlier step of this run made the folder."""
        if not os.path.isdir(self.path):
            raise StepFailed(
                "run_not_found",
                f"The run folder {self.path} does not exist on this endpoint.",
                "The steps of one run must share one file system: check 'root' in the site profile.",
            )

    def plan_of(self, recipe_sha256: str) -> dict[str, Any]:
        """The run's plan, once its recipe is known to be the one that the last step returned."""
        self.require()
        plan: dict[str, Any] = self.read("plan.json")
        if plan["recipe_sha256"] != recipe_sha256 or sha256_file(self.recipe) != recipe_sha256:
            raise StepFailed(
                "recipe_changed", "The run's recipe is no longer the one that was rendered."
            )
        return plan

    def write(self, name: str, value: Any) -> str:
        path = os.path.join(self.path, name)
        write_json(path, value)
        return path

    def read(self, name: str) -> Any:
        return read_json(os.path.join(self.path, name))

    def note_function(self, step: str) -> None:
        """Put on record which text of a step's function ran; nothing where it runs from a plain file."""
        if BUNDLE_SHA256:
            self.write("functions.json", {**self.functions(), step: BUNDLE_SHA256})

    def functions(self) -> dict[str, str]:
        """Step -> sha256 of the function that did it, as each said of itself."""
        found: dict[str, str] = self.read("functions.json") if self.has("functions.json") else {}
        return found

    def has(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.path, name))

    def set_status(
        self, state: str, step: str, phase: str = "", percent: int = 0, outcome: str = ""
    ) -> None:
        """Tell watchers where the run stands; also the heartbeat of a step under way.

        ``outcome`` is what ``result.txt`` says of a run that is ``finished``; its phase when left out.
        """
        now = time.time()
        try:
            before = self.read("status.json")
            started = before["started_at"]
        except (OSError, ValueError, KeyError):
            before, started = {}, now
        status = {
            "state": state,
            "current_step": step,
            "phase": phase,
            "percent": percent,
            "started_at": started,
            "heartbeat_at": now,
        }
        write_json(self.status, status)
        self._show(before, status, outcome or phase, now)

    def _show(
        self, before: dict[str, Any], status: dict[str, Any], outcome: str, now: float
    ) -> None:
        """Keep the files current that people read who only have the folder."""
        page = status_page(status, tail_of(self.log, 4 * PAGE_LOG_CHARS), now)
        write_quickly(os.path.join(self.path, "status.html"), page)
        keys = ("state", "current_step", "phase")
        if any(before.get(key) != status[key] for key in keys):
            try:
                path = os.path.join(self.path, "notifications.txt")
                with open(path, "a", encoding="utf-8") as stream:
                    stream.write(notification(status, now))
            except OSError:
                pass  # what people watch must not end a build
        if status["state"] == "finished":
            write_quickly(os.path.join(self.path, "result.txt"), f"{outcome}\n")

    def is_aborted(self) -> bool:
        return os.path.exists(self.abort)

    def raise_if_aborted(self) -> None:
        if self.is_aborted():
            raise StepFailed("aborted", "The build was stopped on request.", log_path=self.log)

    def clean_work(self, site: dict[str, Any]) -> bool:
        """Remove what must not outlive the run; returns whether all of it is gone."""
        gone = remove_tree(self.work)
        staging = site.get("staging")
        if staging:
            gone = remove_tree(os.path.join(staging["path"], self.run_id)) and gone
        return gone
