"""Fetching one large file, going on where it broke off, and believing nothing but its sha256.

The part that has arrived lies beside what the server said of it (its ETag or date). The rest is asked for with
``Range`` and ``If-Range`` (RFC 9110 13.1.5, 14.2): a server whose file has changed answers with the whole of it,
and one that knows no ranges does too; then it begins anew.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import time
import urllib.error
from collections.abc import Callable
from typing import IO, Any

from .catalogue_index import read_object
from .files import CHUNK_BYTES, remove_tree, sha256_file, write_json
from .results import StepFailed, shorten

DOWNLOAD_TIME_LIMIT_S = 12 * 3600
# So often in a row may nothing at all arrive.
MOST_SILENT_ATTEMPTS = 5
ATTEMPT_PAUSE_S = 1.0
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

# What opens the file's address with the headers given; raises HTTPError for 4xx and 5xx.
Opener = Callable[[dict[str, str]], IO[bytes]]


class Download:
    """One file that is fetched into ``folder``, under its sha256."""

    def __init__(self, folder: str, expected: str, what: str, limit: int) -> None:
        self.path = os.path.join(folder, f"{expected}.sif")
        self.part = os.path.join(folder, f"{expected}.part")
        self.said = os.path.join(folder, f"{expected}.part.json")
        self.expected = expected
        self.what = what
        self.limit = limit
        self.resumed_at: list[int] = []

    def fetch(self, opener: Opener, source: str) -> str:
        """The path of the whole file, whose sha256 has been compared. ``source`` names the address in messages,
        and tells whether a part is of the same one.

        Raises :class:`StepFailed`: ``image_changed`` when the sha256 differs, ``payload_refused`` when it is
        larger than allowed, ``in_use`` while another fetches the same, ``time_limit`` or ``network``.
        """
        os.makedirs(os.path.dirname(self.part), mode=0o700, exist_ok=True)
        if os.path.isfile(self.path) and sha256_file(self.path) == self.expected:
            return self.path  # fetched before, and not registered yet
        handle = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._lock(handle)
            if os.fstat(handle).st_size and (read_object(self.said) or {}).get("source") != source:
                os.ftruncate(handle, 0)
            self._whole(handle, opener, source)
            # it may have been made of two files that say to be one
            if sha256_file(self.part) != self.expected and self.resumed_at:
                os.ftruncate(handle, 0)
                self._whole(handle, opener, source)
            found = sha256_file(self.part)
            if found != self.expected:
                self.forget()
                raise StepFailed(
                    "image_changed",
                    f"{self.what} {shorten(source, 200)} has the sha256 {found}, and {self.expected} is expected.",
                    "It may have been replaced; ask whoever published it.",
                )
            os.fsync(handle)
            os.replace(self.part, self.path)
            remove_tree(self.said)
        finally:
            os.close(handle)
        return self.path

    def forget(self) -> None:
        """Remove what has arrived."""
        for path in (self.part, self.said):
            remove_tree(path)

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # another may have finished, and given the file its name, since it was opened here
            if not os.path.samestat(os.fstat(handle), os.stat(self.part)):
                raise FileNotFoundError
        except OSError:
            raise StepFailed(
                "in_use",
                f"{self.what} {self.expected[:12]}… is being fetched here already.",
                "Wait for it.",
            ) from None

    def _whole(self, handle: int, opener: Opener, source: str) -> None:
        """Fetch until nothing is missing, again and again as long as something arrives."""
        end = time.monotonic() + DOWNLOAD_TIME_LIMIT_S
        silent, why = 0, "nothing arrived"
        while silent < MOST_SILENT_ATTEMPTS:
            before = os.fstat(handle).st_size
            try:
                if self._attempt(handle, opener, source, end):
                    return
            except (OSError, http.client.HTTPException) as error:
                why = shorten(str(error) or type(error).__name__, 120)
            except StepFailed as failure:
                if failure.code != "network":
                    raise
                why = failure.message.rstrip(".")
            if os.fstat(handle).st_size > before:
                silent = 0
                continue
            silent += 1
            time.sleep(ATTEMPT_PAUSE_S * silent)
        arrived = os.fstat(handle).st_size
        raise StepFailed(
            "network",
            f"{self.what} {shorten(source, 200)} broke off after {arrived} bytes: {why}.",
            "Start it again; it goes on where it stopped, if the server allows that.",
        )

    def _attempt(self, handle: int, opener: Opener, source: str, end: float) -> bool:
        """Whether all of the file is there now. What arrives is written as it comes."""
        have = os.fstat(handle).st_size
        known = read_object(self.said) or {}
        headers = {}
        if have and known.get("validator"):
            headers = {"Range": f"bytes={have}-", "If-Range": str(known["validator"])}
        elif have:
            os.ftruncate(handle, 0)
        try:
            answer = opener(headers)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and headers:
                # the server's file is not longer than the part: it is whole, or it is another one
                if error.headers.get("Content-Range") != f"bytes */{have}":
                    os.ftruncate(handle, 0)
                    return False
                return True
            raise self._refused(error.code, source) from None
        with answer:
            total = self._begin(handle, answer, have if headers else 0, source)
            self._write(handle, answer, total, source, end)
        return total is None or os.fstat(handle).st_size == total

    def _begin(self, handle: int, answer: Any, have: int, source: str) -> int | None:
        """Make room for what the server sends: the rest, or all of it. Returns the whole file's size."""
        status = int(answer.status)
        given = answer.headers.get("Content-Range", "") if status == 206 else ""
        part = CONTENT_RANGE.fullmatch(given)
        length = answer.headers.get("Content-Length", "")
        if status == 206 and part and int(part[1]) == have:
            self.resumed_at.append(have)
            total = int(part[3]) if part[3] != "*" else None
        elif status == 206:
            os.ftruncate(handle, 0)
            raise StepFailed("network", "the server sent another part than was asked for.")
        else:
            os.ftruncate(handle, 0)
            total = int(length) if length.isdigit() else None
        if (total or 0) > self.limit:
            raise self._too_large()
        tag = str(answer.headers.get("ETag") or "")
        # a weak tag says that two files mean the same, not that their bytes are the same
        validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        write_json(self.said, {"source": source, "validator": validator, "bytes": total})
        return total

    def _write(self, handle: int, answer: Any, total: int | None, source: str, end: float) -> None:
        position = os.lseek(handle, 0, os.SEEK_END)
        while chunk := answer.read1(CHUNK_BYTES):
            position += len(chunk)
            if position > self.limit or (total is not None and position > total):
                os.ftruncate(handle, 0)
                raise self._too_large()
            if time.monotonic() > end:
                raise StepFailed(
                    "time_limit",
                    f"{self.what} {shorten(source, 200)} did not arrive within {DOWNLOAD_TIME_LIMIT_S} seconds.",
                    "Start it again; it goes on where it stopped, if the server allows that.",
                )
            view = memoryview(chunk)
            while view:
                view = view[os.write(handle, view) :]

    def _too_large(self) -> StepFailed:
        self.forget()
        return StepFailed(
            "payload_refused",
            f"{self.what} is larger than the site's limit of {self.limit} bytes, or than its server said.",
            "The endpoint's administrator sets 'payload_limit_bytes' in the site profile.",
        )

    def _refused(self, status: int, source: str) -> StepFailed:
        if status in (408, 425, 429, 500, 502, 503, 504):
            return StepFailed("network", f"the server answered {status}.")
        self.forget()
        return StepFailed(
            "source_not_found",
            f"{self.what} {shorten(source, 200)} cannot be fetched: the server answered {status}.",
            "Check the address; it must be readable without a password.",
        )
