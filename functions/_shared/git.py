"""Git over https, as an argument list, with everything that could run code or ask a question turned off."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from .files import remove_tree, tail_of, walk_tree
from .network import pinned_host
from .processes import run_guarded
from .results import StepFailed, shorten
from .spec_words import without_secrets

GIT_TIMEOUT_S = 1800
GIT_TICK_S = 2.0
MAX_GIT_ANSWER_BYTES = 16 * 1024 * 1024
# A repository lies there twice while it is checked out: as objects and as files.
OBJECTS_AND_FILES = 2
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def resolve_ref(
    url: str, ref: str | None, site: dict[str, Any], is_aborted: Callable[[], bool]
) -> str:
    """The commit that ``ref`` (a branch, tag or commit; None for the default branch) names now.

    Raises :class:`StepFailed` with ``payload_not_found`` when the repository or the ref does not exist.
    """
    pinned = pinned_host(url, site, "payload_refused", "The payload")
    if ref and COMMIT.fullmatch(ref):
        return ref
    answer = _git(["ls-remote", "--", url], site, "/", is_aborted, pinned)
    lines = [line.split("\t", 1) for line in answer.splitlines() if "\t" in line]
    refs = {name: commit for commit, name in lines if COMMIT.fullmatch(commit)}
    wanted = (
        ("HEAD",)
        if not ref
        else (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref)
    )
    for name in wanted:
        if name in refs:
            return refs[name]
    raise StepFailed(
        "payload_not_found",
        f"The git repository {shorten(without_secrets(url), 120)} has no branch or tag '{ref or 'HEAD'}'.",
        "Give an existing branch, tag or full commit as 'payload.ref'.",
    )


def checkout(
    url: str, commit: str, folder: str, site: dict[str, Any], is_aborted: Callable[[], bool]
) -> None:
    """Bring one commit's files into the empty ``folder``, without its history."""
    pinned = pinned_host(url, site, "payload_refused", "The payload")
    _git(["init", "-q", "--template=", "."], site, folder, is_aborted)
    try:
        shallow = ["fetch", "-q", "--depth", "1", "--no-tags", "--", url, commit]
        _git(shallow, site, folder, is_aborted, pinned)
    except StepFailed as failure:
        if failure.code != "payload_not_found":
            raise
        # some servers do not give out a bare commit, or have no shallow history: take all of it
        whole = ["fetch", "-q", "--tags", "--", url, "+refs/heads/*:refs/remotes/origin/*"]
        _git(whole, site, folder, is_aborted, pinned)
    try:
        _git(["checkout", "-q", "--detach", commit], site, folder, is_aborted)
    except StepFailed as failure:
        if failure.code != "payload_not_found":
            raise
        raise StepFailed(
            "payload_not_found",
            f"The git repository {shorten(without_secrets(url), 120)} has no commit {commit}.",
            "Give an existing branch, tag or full commit as 'payload.ref'.",
        ) from None
    remove_tree(os.path.join(folder, ".git"))


def _git(
    arguments: list[str],
    site: dict[str, Any],
    cwd: str,
    is_aborted: Callable[[], bool],
    pinned: str = "",
) -> str:
    """What git prints. It ends with all that it started when the run is aborted, or when what it brings to
    ``cwd`` grows beyond the site's limit for payloads.
    """
    program = shutil.which("git")
    if not program:
        raise StepFailed(
            "internal",
            "The build endpoint has no git, so a git payload cannot be fetched.",
            "Ask the endpoint's administrator to install git, or give the payload as an archive's https address.",
        )
    limit = site["payload_limit_bytes"]

    def check_size(_: float) -> None:
        if cwd != "/" and _size_of(cwd) > OBJECTS_AND_FILES * limit:
            raise StepFailed(
                "payload_refused", f"The payload is larger than the site's limit of {limit} bytes."
            )

    with tempfile.TemporaryDirectory(prefix="cib-git-") as home:
        errors, answer = os.path.join(home, "errors"), os.path.join(home, "answer")
        ended = run_guarded(
            [program, *_git_options(pinned), *arguments],
            cwd=cwd,
            environment=_git_environment(site, home),
            log_path=errors,
            output_path=answer,
            max_output_bytes=MAX_GIT_ANSWER_BYTES,
            time_limit_s=GIT_TIMEOUT_S,
            scratch=[],
            is_aborted=is_aborted,
            on_tick=check_size,
            tick_s=GIT_TICK_S,
        )
        said = tail_of(errors, MAX_GIT_ANSWER_BYTES)
        printed = tail_of(answer, MAX_GIT_ANSWER_BYTES)
    if ended.stopped == "aborted":
        raise StepFailed("aborted", "The build was stopped on request.")
    if ended.stopped:
        raise StepFailed("time_limit", f"git did not finish within {GIT_TIMEOUT_S} seconds.")
    if ended.status != 0:
        lines = without_secrets(said).splitlines()
        reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), "")
        raise StepFailed(
            "payload_not_found",
            f"git could not read the payload's repository: {shorten(reason, 200) or 'no reason given'}.",
            "Check 'payload.git', whose address may have to end with '.git'; the repository must be readable "
            "without a password.",
            log_tail="\n".join(lines),
        )
    return printed


def _git_options(pinned: str) -> list[str]:
    settings = [
        "protocol.allow=never",
        "protocol.https.allow=always",
        # http only ever reaches hosts that the site lists: pinned_host refuses the others
        "protocol.http.allow=always",
        # a redirect could lead to a host that pinned_host would refuse
        "http.followRedirects=false",
        # else a server that offers Negotiate is shown the account's Kerberos ticket
        "http.emptyAuth=false",
        "core.hooksPath=/dev/null",
        "core.symlinks=true",
        "credential.helper=",
        "submodule.recurse=false",
        "init.defaultBranch=main",
        "advice.detachedHead=false",
    ]
    if pinned:
        settings.append(f"http.curloptResolve={pinned}")  # git before 2.37 does not know it
    return [word for setting in settings for word in ("-c", setting)]


def _git_environment(site: dict[str, Any], home: str) -> dict[str, str]:
    """``home`` is an empty folder: a password in the account's own ``.netrc`` is not for a stranger's spec."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") or key.lower().endswith("_proxy")
    }
    environment.update(
        HOME=home,
        GIT_TERMINAL_PROMPT="0",
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL="/dev/null",
        GIT_ASKPASS="/bin/false",
        GIT_LFS_SKIP_SMUDGE="1",
        LC_ALL="C",
        **{f"{scheme}_proxy": str(proxy) for scheme, proxy in site["proxies"].items()},
    )
    if site["ca_bundle"]:
        environment["GIT_SSL_CAINFO"] = site["ca_bundle"]
    return environment


def _size_of(folder: str) -> int:
    total = 0
    for there, _, names in walk_tree(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(there, name)).st_size
            except OSError:
                pass  # git renames and removes its own files meanwhile
    return total
