"""What every function returns: one small JSON object, on success and on failure alike."""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Callable
from typing import Any

# A flow's state is capped at 200 KB and holds each output twice; logs stay in files.
MAX_RESULT_BYTES = 8 * 1024
MAX_TAIL_BYTES = 2 * 1024
TERMINAL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
MAX_SENTENCE_CHARS = 600
MAX_SENTENCE_BYTES = 900  # as JSON, in which a character may take 12 bytes

# The closed list of error codes. Clients and tests may rely on these; texts may change.
ERROR_CODES = frozenset(
    {
        "aborted",
        "already_exists",
        "apptainer_missing",
        "apptainer_unusable",
        "apt_failed",
        "apt_missing",
        "apt_package_not_found",
        "base_not_found",
        "base_refused",
        "build_failed",
        "build_killed",
        "command_failed",
        "conda_failed",
        "conda_missing",
        "conda_package_not_found",
        "container_not_found",
        "disk_full",
        "fakeroot_failed",
        "illegal_name",
        "image_changed",
        "image_unreadable",
        "in_use",
        "internal",
        "lock_invalid",
        "lock_mismatch",
        "lock_not_found",
        "machine_mismatch",
        "network",
        "not_trusted",
        "out_of_memory",
        "ownership_refused",
        "payload_checksum",
        "payload_not_found",
        "payload_not_visible",
        "payload_refused",
        "pip_conflict",
        "pip_failed",
        "pip_package_not_found",
        "post_build_failed",
        "python_missing",
        "python_too_old",
        "recipe_changed",
        "recipe_too_large",
        "registry_denied",
        "registry_rate_limit",
        "run_not_found",
        "site_invalid",
        "source_not_found",
        "spack_failed",
        "spec_invalid",
        "spec_too_large",
        "time_limit",
        "tmpdir_unusable",
        "transfer_failed",
        "verify_architecture",
        "verify_arguments",
        "verify_command_failed",
        "verify_environment",
        "verify_file_missing",
        "verify_file_unreadable",
        "verify_gpu",
        "verify_host_leak",
        "verify_import_failed",
        "verify_inconsistent",
        "verify_mpi",
        "verify_package_missing",
        "verify_version_mismatch",
        "worker_lost",
    }
)


class StepFailed(Exception):
    """A step cannot go on, for a reason that the user can understand.

    ``code`` is from :data:`ERROR_CODES`; ``message`` is one sentence; ``hint`` says what to do about it.
    """

    def __init__(
        self, code: str, message: str, hint: str = "", log_path: str = "", log_tail: str = ""
    ) -> None:
        if code not in ERROR_CODES:
            raise ValueError(f"unknown error code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = fitting(message)
        self.hint = fitting(hint)
        self.log_path = log_path
        self.log_tail = log_tail

    def as_json(self) -> dict[str, str]:
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "log_path": self.log_path,
            "log_tail": last_bytes(self.log_tail, MAX_TAIL_BYTES),
        }


def shorten(text: str, limit: int) -> str:
    """``text`` on one line, with its middle left out when it is longer than ``limit`` characters."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    half = (limit - 3) // 2
    return f"{line[:half]}...{line[-half:]}"


def plain_text(text: str) -> str:
    """``text`` without what would move a terminal's cursor or colour it: a stranger's program may have printed it."""
    lines = TERMINAL_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in lines if c in "\n\t " or c.isprintable())


def fitting(text: str) -> str:
    """``text`` on one line, short enough to stand twice in a result: it may come from a log in any script."""
    limit = MAX_SENTENCE_CHARS
    line = plain_text(shorten(text, limit))
    while len(json.dumps(line)) > MAX_SENTENCE_BYTES:
        limit = limit * 3 // 4
        line = shorten(line, limit)
    return line


def last_bytes(text: str, limit: int) -> str:
    """The end of ``text``, at most ``limit`` bytes once it is JSON, from a line's beginning if possible."""
    tail = plain_text(text[-limit:])
    is_cut = len(text) > limit
    while len(json.dumps(tail)) > limit:
        tail, is_cut = tail[max(1, len(tail) // 10) :], True
    if is_cut and "\n" in tail:
        tail = tail.split("\n", 1)[1]
    return tail


def run_step(
    step: str, work: Callable[[], dict[str, Any]], max_bytes: int = MAX_RESULT_BYTES
) -> dict[str, Any]:
    """Run a function's body and wrap what it returns, or why it failed, in the common shape.
    Only what no flow calls may have a higher ``max_bytes``.

    Full disks and missing permissions are the site's to mend, and said as such. Any other exception is a bug
    and passes through: the flow catches it as one.
    """
    started = time.monotonic()
    try:
        fields = work()
        result = {"ok": True, "step": step, **fields}
    except StepFailed as failure:
        result = {"ok": False, "step": step, "error": failure.as_json()}
    except OSError as error:
        result = {"ok": False, "step": step, "error": _of_storage(error).as_json()}
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    size = len(json.dumps(result))
    if size > max_bytes:
        raise ValueError(f"{step} returned {size} bytes; at most {max_bytes} are allowed")
    return result


def _of_storage(error: OSError) -> StepFailed:
    place = str(error.filename or "its files")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StepFailed(
            "disk_full",
            f"The endpoint has no space left to write {shorten(place, 200)}.",
            "Make room there, or ask the endpoint's administrator for another place or quota.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StepFailed(
            "site_invalid",
            f"The endpoint's account has no permission for {shorten(place, 200)}.",
            "Ask the endpoint's administrator to correct 'root' and 'tmpdir' in the site profile.",
        )
    raise error
