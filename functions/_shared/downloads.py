"""Fetching one large file, going on where it broke off.

The part that has arrived lies beside what the server said of it (its ETag or date). The rest is asked for with
``Range`` and ``If-Range`` (RFC 9110 13.1.5, 14.2): a server whose file has changed answers with the whole of it,
and one that knows no ranges does too; then it begins anew. Where a sha256 is known, nothing else is believed.
"""

from __future__ import annotations

import email.utils
import errno
import fcntl
import hashlib
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
SETTLED_S = 60
# Trouble of a server that may have passed a moment later.
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

# What opens the file's address with the headers given; raises HTTPError for 4xx and 5xx.
Opener = Callable[[dict[str, str]], IO[bytes]]


class Arrival:
    """One file on its way to ``part``; ``said`` beside it holds what its server said of it.

    ``what`` begins the sentences. ``on_data`` is called whenever something arrived, and may raise.
    """

    def __init__(
        self,
        part: str,
        what: str,
        limit: int,
        *,
        on_data: Callable[[], None] = lambda: None,
    ) -> None:
        self.part = part
        self.said = f"{part}.json"
        self.what = what
        self.limit = limit
        self.on_data = on_data
        self.resumed_at: list[int] = []
        self._sum = hashlib.sha256()
        self._summed = 0

    def receive(self, handle: int, opener: Opener, source: str, expected: str | None) -> str:
        """Fetch all of it into the file ``handle``; returns its sha256, which need not be the ``expected`` one.

        Raises :class:`StepFailed`: ``source_not_found``, ``payload_refused`` when it is larger than allowed,
        ``time_limit`` or ``network``.
        """
        self._whole(handle, opener, source)
        found = self._sha256(handle)
        # it may have been made of two files that say to be one
        if expected and found != expected and self.resumed_at:
            self._empty(handle)
            self._whole(handle, opener, source)
            found = self._sha256(handle)
        return found

    def forget(self) -> None:
        """Remove what has arrived."""
        for path in (self.part, self.said):
            remove_tree(path)

    def _empty(self, handle: int) -> None:
        os.ftruncate(handle, 0)
        self._sum, self._summed = hashlib.sha256(), 0

    def _sha256(self, handle: int) -> str:
        """Of what was written here, or of the file where a part of it was there before."""
        if self._summed == os.fstat(handle).st_size:
            return self._sum.hexdigest()
        return sha256_file(self.part)

    def _whole(self, handle: int, opener: Opener, source: str) -> None:
        """Fetch until nothing is missing, again and again as long as something arrives."""
        end = time.monotonic() + DOWNLOAD_TIME_LIMIT_S
        silent, why = 0, "nothing arrived"
        while silent < MOST_SILENT_ATTEMPTS:
            before = os.fstat(handle).st_size
            unheard = None
            try:
                if self._attempt(handle, opener, source, end):
                    return
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    # not the connection's fault, and which disk it is
                    raise OSError(error.errno, error.strerror, self.part) from None
                why = shorten(str(error) or type(error).__name__, 120)
            except http.client.HTTPException as error:
                why = shorten(str(error) or type(error).__name__, 120)
            except StepFailed as failure:
                if failure.code != "network":
                    raise
                unheard, why = failure, failure.message.rstrip(".")
            if os.fstat(handle).st_size > before:
                silent = 0
                continue
            silent += 1
            time.sleep(ATTEMPT_PAUSE_S * silent)
            self.on_data()
        arrived = os.fstat(handle).st_size
        if unheard and not arrived:
            raise unheard
        if not arrived:
            raise StepFailed(
                "network",
                f"{self.what} {shorten(source, 200)} cannot be fetched: {why}.",
                "Start again in a while.",
            )
        raise StepFailed(
            "network",
            f"{self.what} {shorten(source, 200)} broke off after {arrived} bytes: {why}.",
            "Start again; an image goes on where it stopped, if its server allows that.",
        )

    def _attempt(self, handle: int, opener: Opener, source: str, end: float) -> bool:
        """Whether all of the file is there now. What arrives is written as it comes."""
        have = os.fstat(handle).st_size
        known = read_object(self.said) or {}
        headers = {}
        if have and known.get("validator"):
            headers = {"Range": f"bytes={have}-", "If-Range": str(known["validator"])}
        elif have:
            self._empty(handle)
        try:
            answer = opener(headers)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and headers:
                # the server's file is not longer than the part: it is whole, or it is another one
                if error.headers.get("Content-Range") != f"bytes */{have}":
                    self._empty(handle)
                    return False
                return True
            raise self._refused(error.code, source) from None
        with answer:
            total = self._begin(handle, answer, have if headers else 0, known, source)
            self._write(handle, answer, total, source, end)
        return total is None or os.fstat(handle).st_size == total

    def _begin(
        self, handle: int, answer: Any, have: int, known: dict[str, Any], source: str
    ) -> int | None:
        """Make room for what the server sends: the rest, or all of it. Returns the whole file's size."""
        given = answer.headers.get("Content-Range", "") if int(answer.status) == 206 else ""
        part = CONTENT_RANGE.fullmatch(given)
        length = answer.headers.get("Content-Length", "")
        if int(answer.status) == 206:
            total = int(part[3]) if part and part[3] != "*" else None
            begins = int(part[1]) if part and have else None
            if begins != have or not _is_same(answer.headers, total, known):
                self._empty(handle)
                raise ConnectionError("the server sent another part than was asked for")
            self.resumed_at.append(have)
            validator = known["validator"]
        else:
            self._empty(handle)
            total = int(length) if length.isdigit() else None
            validator = _validator(answer.headers)
        if (total or 0) > self.limit:
            raise self._too_large()
        write_json(self.said, {"source": source, "validator": validator, "bytes": total})
        return total

    def _write(self, handle: int, answer: Any, total: int | None, source: str, end: float) -> None:
        position = os.lseek(handle, 0, os.SEEK_END)
        while chunk := answer.read1(CHUNK_BYTES):
            position += len(chunk)
            if position > self.limit or (total is not None and position > total):
                self._empty(handle)
                raise self._too_large()
            if time.monotonic() > end:
                raise StepFailed(
                    "time_limit",
                    f"{self.what} {shorten(source, 200)} did not arrive within {DOWNLOAD_TIME_LIMIT_S} seconds.",
                    "Start again; an image goes on where it stopped, if its server allows that. A payload may also "
                    "come by Globus Transfer.",
                )
            if self._summed == position - len(chunk):
                self._sum.update(chunk)
                self._summed = position
            view = memoryview(chunk)
            while view:
                view = view[os.write(handle, view) :]
            self.on_data()

    def _too_large(self) -> StepFailed:
        self.forget()
        return StepFailed(
            "payload_refused",
            f"{self.what} is larger than the site's limit of {self.limit} bytes, or than its server said.",
            "The endpoint's administrator sets 'payload_limit_bytes' in the site profile.",
        )

    def _refused(self, status: int, source: str) -> Exception:
        if status in PASSING_STATUSES:
            return ConnectionError(f"the server answered {status}")
        self.forget()
        return StepFailed(
            "source_not_found",
            f"{self.what} {shorten(source, 200)} cannot be fetched: the server answered {status}.",
            "Check the address; it must be readable without a password.",
        )


def _validator(headers: Any) -> str | None:
    """What the server would know this very file by; None where it says nothing that two files may not share."""
    tag = str(headers.get("ETag") or "")
    # a weak tag says that two files mean the same, not that their bytes are the same
    if tag and not tag.startswith("W/"):
        return tag
    # a file may change twice within the second that its date names (RFC 9110 8.8.2.2)
    dates = [_seconds(headers.get(name)) for name in ("Last-Modified", "Date")]
    if None in dates or float(dates[1] or 0) - float(dates[0] or 0) < SETTLED_S:
        return None
    return str(headers["Last-Modified"])


def _seconds(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _is_same(headers: Any, total: int | None, known: dict[str, Any]) -> bool:
    """Whether a part is of the file that began: some servers look at ``Range`` and not at ``If-Range``."""
    if known.get("bytes") and total and known["bytes"] != total:
        return False
    given = [headers.get(name) for name in ("ETag", "Last-Modified")]
    return known["validator"] in given or not any(given)


class Download(Arrival):
    """An image that is fetched into ``folder``, under its sha256."""

    def __init__(self, folder: str, expected: str, what: str, limit: int) -> None:
        super().__init__(os.path.join(folder, f"{expected}.part"), what, limit)
        self.path = os.path.join(folder, f"{expected}.sif")
        self.expected = expected

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
                self._empty(handle)
            found = self.receive(handle, opener, source, self.expected)
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
