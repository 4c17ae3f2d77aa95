"""One Transfer task at work, in a thread: copies or deletes, meets faults, tries again, gives
up."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cib_flows.local.database import DiskFull
from cib_flows.local.transfer import files
from cib_flows.local.transfer.collections import Collection, Collections, is_inside
from cib_flows.local.transfer.errors import TransferError
from cib_flows.local.transfer.filters import included
from cib_flows.local.transfer.progress import Progress
from cib_flows.local.transfer.store import TaskRow, TransferStore

__all__ = ["RETRY_DELAYS", "Canceled", "Job", "deadline_of"]

# The service tries for a day; here whoever waits sits in front of the machine.
RETRY_DELAYS = (0.5, 1.0, 2.0)
FULL_DISK_PAUSE = 1.0


class Canceled(Exception):
    """Somebody asked the task to stop."""


class _Expired(Exception):
    """The task's deadline has passed."""


class _Fault(Exception):
    """Something that the service would try again: ``code`` as its events and nice_status name
    it."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


def deadline_of(request: Mapping[str, Any]) -> float | None:
    """The moment of a request's deadline. Raises :class:`TransferError` for a text that is none."""
    text = request.get("deadline")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        raise TransferError.bad_request(
            "deadline must be a date and time such as 2030-01-31 12:00:00."
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


class Job:
    """Runs one task to its end. ``run`` blocks; ``cancel`` may be called from any thread."""

    def __init__(
        self,
        task: TaskRow,
        collections: Collections,
        store: TransferStore,
        retry_delays: Sequence[float] = RETRY_DELAYS,
    ) -> None:
        self._task = task
        self._request = task.request
        self._collections = collections
        self._store = store
        self._retry_delays = retry_delays
        self._deadline = deadline_of(task.request)
        self._cancel = threading.Event()
        self._abandon = threading.Event()
        # What an earlier server has kept: the counters begin anew, since the work does.
        self.progress = Progress(
            faults=task.progress.get("faults", 0), removals=task.progress.get("removals", [])
        )
        self._moved = set(store.moved(task.id))

    def cancel(self) -> None:
        """End the task as canceled."""
        self._cancel.set()

    def abandon(self) -> None:
        """Stop working on the task, but leave it ACTIVE: the next server takes it up."""
        self._abandon.set()
        self._cancel.set()

    def run(self) -> None:
        """Work until the task has ended and say so in the store."""
        if not self._store.has_events(self._task.id):
            self._event("STARTED", "started", {"type": self._task.type})
        delays = list(self._retry_delays)
        while True:
            try:
                self._attempt()
            except Canceled:
                if not self._abandon.is_set():
                    self._end("FAILED", "CANCELED", "The task was canceled by its owner.")
                return
            except _Expired:
                self._end("FAILED", "EXPIRED", "The task did not end before its deadline.")
                return
            except DiskFull:
                # Nothing can be written down, not even that: the attempt is made again.
                self._cancel.wait(FULL_DISK_PAUSE)
            except _Fault as fault:
                self._note(fault)
                if not delays:
                    self._end("FAILED", fault.code, fault.description)
                    return
                self._cancel.wait(delays.pop(0))
            except Exception as problem:
                self._end(
                    "FAILED", "INTERNAL_ERROR", f"The local Transfer service failed: {problem}"
                )
                raise
            else:
                self._end("SUCCEEDED")
                return

    # -- one attempt ---------------------------------------------------------------------------

    def _attempt(self) -> None:
        last = self.progress
        self.progress = Progress(faults=last.faults, removals=last.removals)
        if self._task.type == "DELETE":
            self._delete()
        else:
            self._transfer()

    def _go_on(self) -> None:
        if self._cancel.is_set():
            raise Canceled
        if self._deadline is not None and time.time() > self._deadline:
            raise _Expired

    def _collection(self, key: str) -> Collection:
        try:
            return self._collections.get(self._request[key])
        except TransferError as refusal:
            raise _Fault("ENDPOINT_ERROR", refusal.message) from refusal

    def _transfer(self) -> None:
        source, destination = (
            self._collection("source_endpoint"),
            self._collection("destination_endpoint"),
        )
        for item in self._request["DATA"]:
            self._go_on()
            try:
                self._transfer_item(item, source, destination)
            except _Fault as fault:
                if not self._request.get("skip_source_errors") or fault.code != "FILE_NOT_FOUND":
                    raise
                self._skip_error(item, fault)

    def _transfer_item(
        self, item: dict[str, Any], source: Collection, destination: Collection
    ) -> None:
        from_path, to_path = item["source_path"], item["destination_path"]
        start = _locate(source, from_path)
        goal = _locate(destination, to_path)
        if to_path.endswith("/") and not from_path.endswith("/") and not start.is_dir():
            goal = goal / start.name
        follow = self._request.get("recursive_symlinks") == "copy"
        rules = self._request.get("filter_rules") or []
        kept: set[Path] = set()
        try:
            for step in files.expand(
                start,
                goal,
                item.get("recursive"),
                source.path,
                follow,
                lambda name, is_directory: included(rules, name, is_directory),
            ):
                self._go_on()
                self._copy(step, item, source, destination)
                kept.add(step.destination)
            if self._request.get("delete_destination_extra") and start.is_dir():
                self._delete_extra(goal, kept)
        except OSError as problem:
            raise _fault(problem, source, destination) from problem

    def _delete_extra(self, folder: Path, kept: set[Path]) -> None:
        """Remove what is below ``folder`` and not of the source; links are removed, not followed.
        What the filter rules exclude is left alone on both sides."""
        rules = self._request.get("filter_rules") or []
        for child in sorted(folder.iterdir()):
            self._go_on()
            if not included(rules, child.name, child.is_dir()):
                continue
            if child not in kept:
                files.remove(child)
            elif child.is_dir() and not child.is_symlink():
                self._delete_extra(child, kept)

    def _copy(
        self,
        step: files.CopyItem,
        item: dict[str, Any],
        source: Collection,
        destination: Collection,
    ) -> None:
        progress, request = self.progress, self._request
        progress.subtasks_total += 1
        if not is_inside(step.destination, destination.path):
            raise _Fault("PERMISSION_DENIED", f"Path not allowed: {step.destination}")
        if step.is_directory:
            step.destination.mkdir(parents=True, exist_ok=True)
            progress.directories += 1
            progress.subtasks_succeeded += 1
            return
        progress.files += 1
        level = request.get("sync_level")
        verify = bool(request.get("verify_checksum", True))
        goal = collection_path(destination, step.destination)
        if level is not None and files.is_same(step.source, step.destination, int(level)):
            if goal in self._moved:  # by an attempt before this one
                self._count_moved(step.destination.stat().st_size, verify)
            else:
                progress.files_skipped += 1
                progress.subtasks_succeeded += 1
            return
        expected = None
        if item.get("external_checksum"):
            algorithm = str(item.get("checksum_algorithm") or "MD5").lower().replace("-", "")
            expected = (algorithm, str(item["external_checksum"]))
        size = files.copy_file(
            step.source,
            step.destination,
            verify=verify,
            preserve_time=bool(request.get("preserve_timestamp")),
            go_on=self._go_on,
            task_id=self._task.id,
            placing=lambda: self._note_moved(collection_path(source, step.source), goal),
            expected=expected,
        )
        self._count_moved(size, verify)
        self._store.save_progress(self._task.id, asdict(progress))

    def _note_moved(self, origin: str, goal: str) -> None:
        """Just before a file gets its name: after a restart, a sync would leave it out."""
        if goal not in self._moved:
            self._moved.add(goal)
            self._store.add_file(self._task.id, origin, goal)

    def _count_moved(self, size: int, verify: bool) -> None:
        self.progress.files_transferred += 1
        self.progress.bytes_transferred += size
        self.progress.bytes_checksummed += size if verify else 0
        self.progress.subtasks_succeeded += 1

    def _delete(self) -> None:
        collection = self._collection("endpoint")
        for number, item in enumerate(self._request["DATA"]):
            self._go_on()
            path = _locate(collection, item["path"])
            if path == Path(collection.path):
                raise _Fault("PERMISSION_DENIED", "The root of a collection cannot be deleted.")
            self.progress.subtasks_total += 1
            try:
                self._remove(number, path)
            except OSError as problem:
                raise _fault(problem, collection, collection) from problem
            self.progress.subtasks_succeeded += 1

    def _remove(self, number: int, path: Path) -> None:
        """Remove an item; one whose removal was begun before may be gone already."""
        removals = self.progress.removals
        if number == len(removals):
            try:
                removals.append(files.count(path, bool(self._request.get("recursive"))))
            except FileNotFoundError:
                if not self._request.get("ignore_missing"):
                    raise
                removals.append(0)
            self._store.save_progress(self._task.id, asdict(self.progress))
        files.remove(path, missing_ok=True)
        self.progress.files += removals[number]

    # -- what is told --------------------------------------------------------------------------

    def _note(self, fault: _Fault) -> None:
        self.progress.faults += 1
        self.progress.nice_status = fault.code
        self.progress.nice_status_details = fault.description
        with self._store.transaction():
            self._store.save_progress(self._task.id, asdict(self.progress))
            self._event(
                fault.code, fault.description.splitlines()[0], fault.description, error=True
            )

    def _skip_error(self, item: dict[str, Any], fault: _Fault) -> None:
        self.progress.subtasks_skipped_errors += 1
        self.progress.skipped_errors.append(
            {
                "DATA_TYPE": "skipped_error",
                "error_code": fault.code,
                "error_details": fault.description,
                "error_time": None,
                "source_path": item["source_path"],
                "destination_path": item["destination_path"],
                "is_directory": None,
            }
        )

    def _end(self, status: str, code: str = "", description: str = "") -> None:
        progress = self.progress
        if status == "SUCCEEDED":
            progress.nice_status = progress.nice_status_details = None
        else:
            progress.fatal_error = {"code": code, "description": description}
            unfinished = progress.subtasks_total - progress.subtasks_succeeded
            if code == "CANCELED":
                progress.subtasks_canceled = unfinished
            else:
                progress.subtasks_failed = unfinished
        with self._store.transaction():
            if self._store.finish(self._task.id, status, asdict(progress)):
                sentence = description.splitlines()[0] if description else "succeeded"
                self._event(code or status, sentence, {})

    def _event(self, code: str, description: str, details: Any, error: bool = False) -> None:
        self._store.add_event(self._task.id, code, description, details, error)


def _locate(collection: Collection, path: str) -> Path:
    try:
        return collection.locate(path)
    except TransferError as refusal:
        raise _Fault("PERMISSION_DENIED", refusal.message) from refusal


def collection_path(collection: Collection, path: Path) -> str:
    """What the collection calls a file that lies in it."""
    return "/" + str(path.relative_to(collection.path)).removeprefix(".")


_CODES = {
    errno.ENOENT: "FILE_NOT_FOUND",
    errno.EACCES: "PERMISSION_DENIED",
    errno.EPERM: "PERMISSION_DENIED",
    errno.EROFS: "PERMISSION_DENIED",
    errno.EDQUOT: "QUOTA_EXCEEDED",
    errno.ENOSPC: "NO_SPACE_LEFT",
    errno.EISDIR: "IS_A_DIRECTORY",
    errno.ENOTDIR: "NOT_A_DIRECTORY",
}


def _fault(problem: OSError, source: Collection, destination: Collection) -> _Fault:
    if isinstance(problem, files.ChecksumMismatch):
        return _Fault("VERIFY_CHECKSUM", f"Checksum verification failed: {problem}")
    code = _CODES.get(problem.errno or 0, "ENDPOINT_ERROR")
    where = str(problem.filename or "")
    collection = destination if where.startswith(destination.path + "/") else source
    sentence = problem.strerror or str(problem)
    return _Fault(
        code,
        f"{sentence}: {where or 'unknown path'}\n"
        f"Endpoint: {collection.name} ({collection.id})\nMessage: {sentence}",
    )
