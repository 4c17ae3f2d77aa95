"""Git over https, as an argument list, with everything that could run code or ask a question turned off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

from .network import pinned_host
from .results import StepFailed, shorten

GIT_TIMEOUT_S = 1800
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def resolve_ref(url: str, ref: str | None, site: dict[str, Any]) -> str:
    """The commit that ``ref`` (a branch, tag or commit; None for the default branch) names now.

    Raises :class:`StepFailed` with ``payload_not_found`` when the repository or the ref does not exist.
    """
    pinned = pinned_host(url, site, "payload_refused", "The payload")
    if ref and COMMIT.fullmatch(ref):
        return ref
    answer = _git(["ls-remote", "--", url], site, "/", pinned)
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
        f"The git repository {shorten(url, 120)} has no branch or tag '{ref or 'HEAD'}'.",
        "Give an existing branch, tag or full commit as 'payload.ref'.",
    )


def checkout(url: str, commit: str, folder: str, site: dict[str, Any]) -> None:
    """Bring one commit's files into the empty ``folder``, without its history."""
    pinned = pinned_host(url, site, "payload_refused", "The payload")
    _git(["init", "-q", "."], site, folder)
    try:
        shallow = ["fetch", "-q", "--depth", "1", "--no-tags", "--", url, commit]
        _git(shallow, site, folder, pinned)
    except StepFailed:
        # some servers do not give out a bare commit, or have no shallow history: take all of it
        _git(
            ["fetch", "-q", "--tags", "--", url, "+refs/heads/*:refs/remotes/origin/*"],
            site,
            folder,
            pinned,
        )
    try:
        _git(["checkout", "-q", "--detach", commit], site, folder)
    except StepFailed:
        raise StepFailed(
            "payload_not_found",
            f"The git repository {shorten(url, 120)} has no commit {commit}.",
            "Give an existing branch, tag or full commit as 'payload.ref'.",
        ) from None
    shutil.rmtree(os.path.join(folder, ".git"))


def _git(arguments: list[str], site: dict[str, Any], cwd: str, pinned: str = "") -> str:
    program = shutil.which("git")
    if not program:
        raise StepFailed(
            "internal",
            "The build endpoint has no git, so a git payload cannot be fetched.",
            "Ask the endpoint's administrator to install git, or give the payload as an archive's https address.",
        )
    options = []
    for setting in (
        "protocol.allow=never",
        "protocol.https.allow=always",
        # http only ever reaches hosts that the site lists: pinned_host refuses the others
        "protocol.http.allow=always",
        # a redirect could lead to a host that pinned_host would refuse
        "http.followRedirects=false",
        "core.hooksPath=/dev/null",
        "core.symlinks=true",
        "credential.helper=",
        "submodule.recurse=false",
        "init.defaultBranch=main",
        "advice.detachedHead=false",
    ):
        options += ["-c", setting]
    if pinned:
        options += ["-c", f"http.curloptResolve={pinned}"]  # git before 2.37 does not know it
    environment = {
        key: value
        for key, value in os.environ.items()
        if key in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") or key.lower().endswith("_proxy")
    }
    environment.update(
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
    try:
        done = subprocess.run(
            [program, *options, *arguments],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StepFailed(
            "time_limit", f"git did not finish within {GIT_TIMEOUT_S} seconds."
        ) from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        reason = next((line for line in said if line.startswith(("fatal:", "error:"))), "")
        raise StepFailed(
            "payload_not_found",
            f"git could not read the payload's repository: {shorten(reason, 200) or 'no reason given'}.",
            "Check 'payload.git', whose address may have to end with '.git'; the repository must be readable "
            "without a password.",
            log_tail=done.stderr,
        )
    return done.stdout
