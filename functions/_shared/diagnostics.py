"""What a build's log means: signatures of known causes.

Each row is ``(code, pattern, message, hint)``. The first line that any pattern fits decides, and of several
that fit it the upper row; ``{1}`` in a message is the pattern's first group. Sources: the words of the tools
themselves (apt 2.x, pip 23 to 26, uv 0.5 to 0.11, apptainer 1.3 to 1.5).
"""

from __future__ import annotations

import re

from .results import shorten

Row = tuple[str, str, str, str]

DISK_HINT = "Ask the endpoint's administrator for another 'tmpdir' in the site profile, or make the image smaller."
MAX_LINE_CHARS = 1000  # a program may print megabytes without an end of line
# They come before the line that tells more.
UNTELLING = frozenset(
    {r"No solution found when resolving dependencies", r"%post section: exit status 127"}
)
USERNS_HINT = (
    "Build on another node or partition, or ask the endpoint's administrator to allow unprivileged user "
    "namespaces or a setuid Apptainer."
)

ROWS: tuple[Row, ...] = (
    (
        "disk_full",
        r"(?i)no space left on device(?!.*namespace)|disk quota exceeded",
        "The build ran out of disk space.",
        DISK_HINT,
    ),
    (
        "apt_package_not_found",
        r"E: Unable to locate package (\S+)",
        "The Debian package '{1}' does not exist in the base image's distribution.",
        "Check its spelling in 'apt'; names differ between releases.",
    ),
    (
        "apt_package_not_found",
        r"E: Couldn't find any package by (?:glob|regex) '([^']+)'",
        "The Debian package '{1}' does not exist in the base image's distribution.",
        "Check its spelling in 'apt'; names differ between releases.",
    ),
    (
        "apt_package_not_found",
        r"E: Package '([^']+)' has no installation candidate",
        "The Debian package '{1}' cannot be installed from the base image's distribution.",
        "Check its spelling in 'apt'; it may have been replaced by another.",
    ),
    (
        "apt_package_not_found",
        r"E: Version '([^']+)' for '([^']+)' was not found",
        "The Debian package '{2}' has no version {1} in the base image's distribution.",
        "Leave the version out of 'apt', or take one that exists.",
    ),
    (
        "pip_package_not_found",
        r"Because (\S+) was not found in the (?:package registry|provided package locations)",
        "The Python package '{1}' does not exist on the package index.",
        "Check its spelling in 'pip'.",
    ),
    (
        "pip_package_not_found",
        r"Could not find a version that satisfies the requirement (.+?) \(from versions: none\)",
        "The Python package '{1}' does not exist on the package index.",
        "Check its spelling in 'pip'.",
    ),
    (
        "pip_package_not_found",
        r"Could not find a version that satisfies the requirement (.+?) \(from versions:",
        "No version of the Python package satisfies '{1}' for the image's Python.",
        "Relax the version in 'pip', or take a base with another Python.",
    ),
    (
        "pip_package_not_found",
        r"Because (?:there is|there are|only).*?(?:no version|the following versions|available).*?(?:of )?([A-Za-z0-9._-]+[=<>!~][^\s,]*)",
        "No version of the Python package satisfies '{1}' for the image's Python.",
        "Relax the version in 'pip', or take a base with another Python.",
    ),
    (
        "pip_conflict",
        r"ERROR: Cannot install (.+?) because these package versions have conflicting dependencies",
        "The Python packages {1} cannot be installed together.",
        "Relax one of their versions in 'pip'; the log says which dependencies conflict.",
    ),
    (
        "pip_conflict",
        r"Because (\S+ depends on .+?)(?:,? we can\b.*)?$",
        "The requested Python packages cannot be installed together, because {1}.",
        "Relax one of their versions in 'pip'; the log's last lines say the whole chain.",
    ),
    (
        "pip_conflict",
        r"No solution found when resolving dependencies",
        "The requested Python packages cannot be installed together.",
        "Relax one of their versions in 'pip'; the log's last lines say which ones conflict.",
    ),
    (
        "pip_failed",
        r"Failed to build (?:installable wheels for|`)?\s*([A-Za-z0-9._-]+)",
        "The Python package '{1}' could not be compiled.",
        "It may need a compiler or libraries: add them to 'apt' (build-essential, python3-dev), or take a "
        "version that has a wheel.",
    ),
    (
        "conda_package_not_found",
        r"(?:Cannot solve the request because of|nothing provides requested|No candidates were found for) ?:?(.+)",
        "A conda package cannot be had: {1}.",
        "Check its spelling and version in 'conda', and the channels in 'conda_channels'.",
    ),
    (
        "conda_package_not_found",
        r"PackagesNotFoundError",
        "A conda package is not in the given channels.",
        "Check its spelling and version in 'conda', and the channels in 'conda_channels'.",
    ),
    (
        "registry_rate_limit",
        r"(?i)toomanyrequests|pull rate limit",
        "The registry answers that its pull limit is used up.",
        "Try again later, or ask the endpoint's administrator for a mirror or credentials.",
    ),
    (
        "base_not_found",
        r"(?i)MANIFEST_UNKNOWN|manifest unknown|NAME_UNKNOWN",
        "The base image does not exist in its registry.",
        "Check the image's name and tag in 'base.image'.",
    ),
    (
        "registry_denied",
        r"(?i)UNAUTHORIZED: authentication required|denied: requested access",
        "The registry does not let the endpoint read the base image.",
        "Check the image's name, or ask the endpoint's administrator to set the registry's credentials.",
    ),
    (
        "apptainer_unusable",
        r"new[ug]idmap'? (?:execution failed|was not found|must be owned by the root user)|"
        r"with a range count lower than 65536",
        "The build node's subordinate ids cannot be used, so a build cannot become root by them.",
        "Ask the endpoint's administrator to mend newuidmap and /etc/subuid, or to set 'fakeroot' to "
        "'ignore-subuid' in the site profile.",
    ),
    (
        "apptainer_unusable",
        r"mapping found but no user namespace available for fakeroot",
        "The build node allows no unprivileged user namespaces, which the build needs.",
        USERNS_HINT,
    ),
    (
        "apptainer_unusable",
        r"(?i)maximum number of user namespaces exceeded|not allowed to create user namespace|"
        r"requires either a suid installation or unprivileged user namespaces|user namespace disabled|"
        r"Could not write info to setgroups|unprivileged_userns_clone",
        "Apptainer may not build here: this node does not let an ordinary user create user namespaces.",
        USERNS_HINT,
    ),
    (
        "apptainer_unusable",
        r"'noexec' mount option set on (\S+?),",
        "Apptainer cannot build in {1}, because that file system forbids running programs.",
        "Ask the endpoint's administrator for another 'tmpdir' in the site profile.",
    ),
    (
        "apptainer_unusable",
        r"destination (\S+) doesn't exist in container",
        "The base image has no {1}, which the build needs as a mount point.",
        "Take a base image with the usual folders.",
    ),
    (
        "network",
        r"(?i)Temporary failure (?:in name resolution|resolving '([^']+)')|Could not resolve host",
        "A host name could not be resolved during the build.",
        "The build node may have no network: ask the endpoint's administrator for a proxy or a mirror.",
    ),
    (
        "network",
        r"(?i)certificate verify failed|invalid peer certificate|UnknownIssuer",
        "A server's certificate is not trusted inside the build.",
        "The site may need its own certificates: its administrator sets 'ca_bundle' in the site profile.",
    ),
    (
        "command_failed",
        r"%post section: exit status 127",
        "A command that the recipe needs does not exist in the base image.",
        "The log's last lines name it; add its package to 'apt'.",
    ),
)


def _fill(message: str, found: re.Match[str]) -> str:
    for index, group in enumerate(found.groups(), start=1):
        message = message.replace(f"{{{index}}}", shorten(group or "", 160))
    return message


def diagnose(log: str) -> tuple[str, str, str]:
    """``(code, sentence, hint)`` for a failed build's log; ``build_failed`` without a guess when unknown.

    The first telling line counts: a name server that did not answer explains the packages that were then not
    found. A line that only says that something failed yields to one that says what.
    """
    lines = [line[:MAX_LINE_CHARS] for line in log.splitlines()]
    best: tuple[bool, int, re.Match[str], Row] | None = None
    for row in ROWS:
        compiled = re.compile(row[1])
        for number, line in enumerate(lines):
            found = compiled.search(line)
            if found:
                place = (row[1] in UNTELLING, number)
                if best is None or place < best[:2]:
                    best = (*place, found, row)
                break
    if best is None:
        return (
            "build_failed",
            "The build failed for a reason that is not known here.",
            "The log's last lines are shown; the whole log is on the endpoint.",
        )
    _, _, found, (code, _, message, hint) = best
    return code, _fill(message, found), hint
