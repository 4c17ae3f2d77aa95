"""The grammar of every field that reaches a recipe, a command line or a path.

Patterns are anchored by ``fullmatch`` and admit printable ASCII only where a tool will read the text. No two
neighbouring parts of a pattern can match the same text, so that a hostile one is refused in linear time.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

IMAGE_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
TAG = re.compile(r"[a-z0-9][a-z0-9._-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
WORKER = re.compile(r"endpoint|none|[0-9]+(\.[0-9]+)+([a-z]+[0-9]+)?")
ABSOLUTE_PATH = re.compile(r"(/[A-Za-z0-9_.@+=:,~-]+)+")
LABEL_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
GIT_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+@-]*")

# Debian Policy 5.6.1 (package names) and 5.6.12 (versions); an architecture may follow a colon. No name ends with
# a hyphen, and nothing after it does: apt-get would remove the package before it.
APT = re.compile(
    r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](:[a-z0-9]+(-[a-z0-9]+)*)?(=[0-9]([A-Za-z0-9.+:~-]*[A-Za-z0-9.+~])?)?"
)

# PEP 508: name, extras, and either versions (PEP 440) or a direct reference, then an environment marker.
PEP508_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
PEP440_CLAUSE = r"(===|~=|==|!=|<=|>=|<|>)\s*[A-Za-z0-9][A-Za-z0-9._!+*-]*"
MARKER_VALUE = r"('[A-Za-z0-9 ._+<>=!,*()/-]*'|\"[A-Za-z0-9 ._+<>=!,*()/-]*\"|[a-z][a-z_.]*)"
MARKER_OPERATOR = r"(<=|>=|==|!=|~=|===|<|>|in|not\s+in)"
MARKER_TEST = rf"(\(\s*)*{MARKER_VALUE}\s*{MARKER_OPERATOR}\s*{MARKER_VALUE}(\s*\))*"
PEP508 = re.compile(
    rf"(?P<name>{PEP508_NAME})"
    rf"(\s*\[\s*{PEP508_NAME}(\s*,\s*{PEP508_NAME})*\s*\])?"
    rf"(\s*(?:(?P<versions>\(?\s*{PEP440_CLAUSE}(\s*,\s*{PEP440_CLAUSE})*(\s*\))?)"
    r"|@\s*(?P<url>(git\+)?https://[A-Za-z0-9._~:/?#@!$&()*+,=%-]+)))?"
    rf"(\s*;\s*(?P<marker>{MARKER_TEST}(\s+(and|or)\s+{MARKER_TEST})*))?",
    re.ASCII,
)

# conda's MatchSpec: [channel::]name, then versions (with or without operators), then a build string, or all of it by
# keys in brackets; of the keys only those that do not say where a package comes from.
CONDA_OPERATOR = r"(==?|!=|~=|>=|<=|<|>)"
CONDA_VERSION = r"[A-Za-z0-9*][A-Za-z0-9_.*+!-]*"
CONDA_VALUE = r"('[A-Za-z0-9_.,|*+!=<>~-]+'|\"[A-Za-z0-9_.,|*+!=<>~-]+\"|[A-Za-z0-9_.|*+!<>~-]+)"
CONDA_KEY = rf"(version|build|build_number|md5|sha256)\s*=\s*{CONDA_VALUE}"
CONDA = re.compile(
    r"(?P<channel>[A-Za-z0-9_][A-Za-z0-9_./-]*::)?(?P<name>[a-z0-9_][a-z0-9_.-]*)"
    rf"((\s*{CONDA_OPERATOR}\s*|\s+){CONDA_VERSION}([,|]\s*{CONDA_OPERATOR}?\s*{CONDA_VERSION})*"
    r"((=|\s+)[A-Za-z0-9_.*]+)?)?"
    rf"(\s*\[\s*{CONDA_KEY}(\s*,\s*{CONDA_KEY})*\s*\])?",
    re.IGNORECASE | re.ASCII,
)
CONDA_CHANNEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")

# Spack: name, then versions, variants, compiler, architecture and dependencies, in the characters they are of.
SPACK_WORD = r"[A-Za-z0-9][A-Za-z0-9_.:=,/-]*"
SPACK_SPEC = re.compile(
    rf"[A-Za-z0-9][A-Za-z0-9_.-]*((@=?| *[+~%^]){SPACK_WORD}| +{SPACK_WORD})*", re.ASCII
)
SPACK_COMPILER = re.compile(r"[a-z][a-z0-9_-]*(@[0-9][0-9.:=]*)?")

HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.IGNORECASE
)

# distribution/reference: domain[:port]/path[:tag][@digest]
IMAGE_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?)"
IMAGE_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
IMAGE_REFERENCE = re.compile(
    rf"(?:(?P<host>{IMAGE_HOST})/)?(?P<path>{IMAGE_PATH}(?:/{IMAGE_PATH})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
# [host/entity/collection/]image[:tag]: what has more than two slashes begins with a host
LIBRARY_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
LIBRARY_REFERENCE = re.compile(
    rf"(?:(?P<host>{IMAGE_HOST})/{LIBRARY_PART}/|{LIBRARY_PART}/)?(?:{LIBRARY_PART}/)?{LIBRARY_PART}"
    r"(:[A-Za-z0-9._-]+)?"
)

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def has_control_characters(text: str) -> bool:
    """Whether ``text`` holds anything that ends a line or is invisible; such text is never rendered."""
    return bool(CONTROL.search(text)) or any(0xD800 <= ord(c) <= 0xDFFF for c in text)


def is_absolute_path(text: str) -> bool:
    """An absolute path of plain characters, without ``.``, ``..`` or empty parts."""
    parts = text.split("/")[1:]
    return bool(ABSOLUTE_PATH.fullmatch(text)) and all(part not in (".", "..") for part in parts)


def https_host(url: str) -> str | None:
    """The host of a plain ``http(s)`` URL without credentials or odd characters; None when it is not one."""
    if not re.fullmatch(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    if parts.username is not None or parts.password is not None or not host:
        return None
    # nothing that one reader would decode and the next would not, such as %31%32%37.0.0.1
    if not HOST.fullmatch(host) and not (":" in host and re.fullmatch(r"[0-9a-f:.]+", host)):
        return None
    return host if port is None or 0 < port < 65536 else None


def pip_name(requirement: str) -> str:
    """The distribution name in a requirement, normalised as PEP 503 says."""
    found = PEP508.fullmatch(requirement.strip())
    if not found:
        raise ValueError(requirement)
    return re.sub(r"[-_.]+", "-", found["name"]).lower()


def split_image_reference(reference: str) -> tuple[str, str, str | None, str | None] | None:
    """``(registry host, repository, tag, digest)`` as Docker reads a reference, or None."""
    found = IMAGE_REFERENCE.fullmatch(reference)
    if not found:
        return None
    host, path = found["host"], found["path"]
    if host is not None and not ("." in host or ":" in host or host == "localhost"):
        host, path = None, f"{host}/{path}"
        if not re.fullmatch(rf"{IMAGE_PATH}(?:/{IMAGE_PATH})*", path):
            return None
    if host in (None, "index.docker.io"):
        host = "docker.io"
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return host, path, found["tag"], found["digest"]


def python_version_of_tag(reference: str) -> tuple[int, int] | None:
    """The Python version that an official ``python`` image's tag names, where it names one."""
    parts = split_image_reference(reference)
    if not parts or parts[1].rsplit("/", 1)[-1] != "python" or not parts[2]:
        return None
    found = re.match(r"(\d+)(?:\.(\d+))?", parts[2])
    if not found:
        return None
    major = int(found[1])
    if found[2] is None:
        # "python:3" is the newest Python 3, "python:2" ended at 2.7
        return (2, 7) if major == 2 else None
    return major, int(found[2])
