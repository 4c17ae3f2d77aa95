"""The whole spec, checked field by field and normalised. The client checks as a courtesy; this is the guard."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .grammars import (
    APT,
    CONDA,
    CONDA_CHANNEL,
    GIT_REF,
    IMAGE_NAME,
    LIBRARY_REFERENCE,
    MODULE,
    PEP508,
    SHA256,
    TAG,
    UUID,
    VARIABLE,
    WORKER,
    has_control_characters,
    https_host,
    is_absolute_path,
    python_version_of_tag,
    split_image_reference,
)

MAX_SPEC_BYTES = 32 * 1024
OLDEST_PYTHON = (3, 10)  # what globus-compute-endpoint 4.16 and newer need (its Requires-Python)
BOOTSTRAPS = ("docker", "oras", "library", "localimage", "oci-archive", "docker-archive")
FILE_BOOTSTRAPS = ("localimage", "oci-archive", "docker-archive")
DEFAULTS: dict[str, Any] = {
    "tag": "latest",
    "description": "",
    "apt": [],
    "pip": [],
    "conda": [],
    "conda_channels": ["conda-forge"],
    "payload_collection": None,
    "payload": {},
    "environment": {},
    "mounts": [],
    "commands": [],
    "verify": {},
    "worker": "endpoint",
    "force": False,
    "run_endpoint": None,
    "build_endpoint": None,
}
FIELDS = frozenset({"name", "base", *DEFAULTS})
# Folders of the image that a payload or a mount point must not take over.
SYSTEM_FOLDERS = frozenset(
    {
        "bin",
        "boot",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "run",
        "sbin",
        "usr",
        "var",
    }
)
# Mounted from the host, or lent by the build, while %post runs: what is written there is not in the image.
COVERED_FOLDERS = ("/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/mnt")
OWN_FOLDERS = ("/.singularity.d/", "/opt/cib/")
# Variables that a shell does not let anyone set: the image's environment script would end at them.
READONLY_VARIABLES = frozenset(
    {"BASHOPTS", "BASH_VERSINFO", "EUID", "GID", "PPID", "SHELLOPTS", "UID"}
)


class SpecRefused(Exception):
    """A spec cannot be accepted: ``field`` is a path such as ``base.image``, ``message`` one sentence."""

    def __init__(self, field: str, message: str, code: str = "spec_invalid") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.code = code


def shown(value: Any) -> str:
    """A value as a message may show it: short, printable, quoted."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else f"{text[:60]}..."


def check_spec(spec: Any) -> dict[str, Any]:
    """Return ``spec`` with every default filled in, or raise :class:`SpecRefused` for the first wrong field."""
    if not isinstance(spec, dict):
        raise SpecRefused("", "The spec must be an object with at least 'name' and 'base'.")
    try:
        size = len(json.dumps(spec))
    except (TypeError, ValueError, RecursionError):
        raise SpecRefused("", "The spec must hold nothing but JSON values.") from None
    if size > MAX_SPEC_BYTES:
        raise SpecRefused(
            "",
            f"The spec is {size} bytes long; at most {MAX_SPEC_BYTES} are accepted, "
            "so put long content into the payload.",
            "spec_too_large",
        )
    for field in spec:
        if field not in FIELDS:
            raise SpecRefused(
                shown(field).strip('"'),
                f"Unknown field {shown(field)}; known fields are {', '.join(sorted(FIELDS))}.",
            )
    full = {**DEFAULTS, **{k: v for k, v in spec.items() if v is not None}}
    checked: dict[str, Any] = {
        "name": _matching(full.get("name"), "name", IMAGE_NAME, 64, _NAME_WANTED),
        "tag": _matching(full["tag"], "tag", TAG, 64, _NAME_WANTED),
        "description": _line(full["description"], "description", 500, allow_empty=True),
        "base": _check_base(full.get("base")),
        "apt": _each(full["apt"], "apt", _apt),
        "pip": _each(full["pip"], "pip", _pip),
        "conda": _each(full["conda"], "conda", _conda),
        "conda_channels": _each(full["conda_channels"], "conda_channels", _channel, 16),
        "payload_collection": _collection(full["payload_collection"]),
        "payload": _check_payload(full["payload"]),
        "environment": _check_environment(full["environment"]),
        "mounts": _each(full["mounts"], "mounts", _mount, 100),
        "commands": _each(full["commands"], "commands", _command, 200),
        "verify": _check_verify(full["verify"]),
        "worker": _matching(
            full["worker"], "worker", WORKER, 32, "'endpoint', 'none' or a version such as 4.19.0"
        ),
        "force": full["force"],
    }
    for field in ("build_endpoint", "run_endpoint"):
        value = full[field]
        checked[field] = (
            None if value is None else _matching(value, field, UUID, 36, "an endpoint's UUID")
        )
    if not isinstance(checked["force"], bool):
        raise SpecRefused("force", f"'force' must be true or false, not {shown(full['force'])}.")
    if not checked["conda_channels"]:
        raise SpecRefused("conda_channels", "'conda_channels' must name at least one channel.")
    _check_payload_sources(checked)
    _check_python(checked)
    return checked


def brings_python(spec: dict[str, Any]) -> bool:
    """Whether the conda packages name Python itself, so that the base image's does not matter."""
    return any(re.match(r"(.*::)?python($|[ =<>!~])", item) for item in spec["conda"])


_NAME_WANTED = "lower-case letters and digits, joined by '.', '_' or '-'"


def _string(value: Any, field: str, limit: int) -> str:
    if not isinstance(value, str):
        raise SpecRefused(field, f"'{field}' must be a string, not {shown(value)}.")
    if not value:
        raise SpecRefused(field, f"'{field}' must not be empty.")
    if len(value) > limit:
        raise SpecRefused(field, f"'{field}' is {len(value)} characters long; at most {limit} fit.")
    return value


def _line(value: Any, field: str, limit: int, allow_empty: bool = False) -> str:
    if allow_empty and value == "":
        return ""
    text = _string(value, field, limit)
    if has_control_characters(text):
        raise SpecRefused(
            field, f"'{field}' must be one line without control characters, not {shown(text)}."
        )
    return text


def _matching(value: Any, field: str, grammar: re.Pattern[str], limit: int, wanted: str) -> str:
    if value is None:
        raise SpecRefused(field, f"'{field}' is missing; give {wanted}.")
    text = _line(value, field, limit)
    if not grammar.fullmatch(text):
        raise SpecRefused(field, f"'{field}' must be {wanted}, not {shown(text)}.")
    return text


def _each(value: Any, field: str, check: Callable[[Any, str], str], limit: int = 500) -> list[str]:
    if isinstance(value, str):
        raise SpecRefused(
            field,
            f"'{field}' must be a list, such as [{shown(value)}], not the string {shown(value)}.",
        )
    if not isinstance(value, list):
        raise SpecRefused(field, f"'{field}' must be a list of strings, not {shown(value)}.")
    if len(value) > limit:
        raise SpecRefused(
            field, f"'{field}' has {len(value)} entries; at most {limit} are accepted."
        )
    return [check(item, f"{field}[{index}]") for index, item in enumerate(value)]


def _object(value: Any, field: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecRefused(field, f"'{field}' must be an object, not {shown(value)}.")
    for key in value:
        if key not in known:
            raise SpecRefused(
                f"{field}.{key}",
                f"'{field}' has an unknown field {shown(key)}; known are {', '.join(known)}.",
            )
    return value


def _apt(value: Any, field: str) -> str:
    return _matching(value, field, APT, 256, "a Debian package such as git or git=1:2.39.5-0")


def _pip(value: Any, field: str) -> str:
    text = _line(value, field, 512).strip()
    if text.startswith("-"):
        raise SpecRefused(
            field, f"'{field}' must be a requirement, not the pip option {shown(text)}."
        )
    text = _matching(
        text, field, PEP508, 512, 'a requirement such as pandas[excel]>=2,<4 or "x @ https://…"'
    )
    found = PEP508.fullmatch(text)
    if found and found["url"] and not https_host(found["url"].removeprefix("git+")):
        raise SpecRefused(
            field,
            f"'{field}' must have an https address without user name or password, not {shown(text)}.",
        )
    return text


def _conda(value: Any, field: str) -> str:
    return _matching(value, field, CONDA, 256, "a conda match spec such as samtools>=1.19")


def _channel(value: Any, field: str) -> str:
    text = _line(value, field, 512)
    if CONDA_CHANNEL.fullmatch(text) or https_host(text):
        return text
    raise SpecRefused(
        field, f"'{field}' must be a channel name or an https address, not {shown(text)}."
    )


def _place(value: Any, field: str) -> str:
    text = _line(value, field, 512)
    if not is_absolute_path(text.rstrip("/")):
        raise SpecRefused(
            field,
            f"'{field}' must be an absolute path of letters, digits and ._@+=:,~- without '..', "
            f"such as /scratch, not {shown(text)}.",
        )
    return text.rstrip("/")


def _mount(value: Any, field: str) -> str:
    place = _place(value, field)
    _refuse_passing(place, field)
    return place


def _refuse_passing(place: str, field: str) -> None:
    """Some folders of the host, or of the build alone, cover the image's own while it is built."""
    for covered in COVERED_FOLDERS:
        if place.startswith(covered + "/"):
            raise SpecRefused(
                field,
                f"'{field}' must not be below {covered}, which the image itself does not keep; "
                f"take another place than {shown(place)}.",
            )


def _command(value: Any, field: str) -> str:
    if isinstance(value, str) and "\n" in value.strip("\n"):
        raise SpecRefused(
            field,
            f"'{field}' must be one line; give each command an entry of its own, "
            "or put a script into the payload.",
        )
    return _line(value.strip("\n") if isinstance(value, str) else value, field, 8192)


def _check_base(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        raise SpecRefused(
            "base", f"'base' must be an object such as {{\"image\": {shown(value)}}}, not a string."
        )
    if value is None:
        raise SpecRefused(
            "base", '\'base\' is missing; give for instance {"image": "python:3.11-slim"}.'
        )
    base = _object(value, "base", ("bootstrap", "image"))
    bootstrap = base.get("bootstrap", "docker")
    if bootstrap not in BOOTSTRAPS:
        raise SpecRefused(
            "base.bootstrap",
            f"'base.bootstrap' must be one of {', '.join(BOOTSTRAPS)}, not {shown(bootstrap)}.",
        )
    if base.get("image") is None:
        raise SpecRefused(
            "base.image", "'base.image' is missing; give for instance python:3.11-slim."
        )
    image = _line(base["image"], "base.image", 512)
    if bootstrap in ("docker", "oras"):
        if not split_image_reference(image):
            raise SpecRefused(
                "base.image",
                "'base.image' must be an image reference such as python:3.11-slim or "
                f"registry.example.org/group/image:tag, not {shown(image)}.",
            )
    elif bootstrap in FILE_BOOTSTRAPS:
        if not is_absolute_path(image):
            raise SpecRefused(
                "base.image",
                f"'base.image' must be the absolute path of a file for {bootstrap}, not {shown(image)}.",
            )
    elif not LIBRARY_REFERENCE.fullmatch(image):
        raise SpecRefused(
            "base.image",
            f"'base.image' must be a library reference such as debian:12, not {shown(image)}.",
        )
    return {"bootstrap": bootstrap, "image": image}


def _collection(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    collection = _object(value, "payload_collection", ("id", "path"))
    identifier = _matching(
        collection.get("id"), "payload_collection.id", UUID, 36, "a collection's UUID"
    )
    if collection.get("path") is None:
        raise SpecRefused(
            "payload_collection.path", "'payload_collection.path' is missing; give a path on it."
        )
    path = _line(collection["path"], "payload_collection.path", 1024)
    if not path.startswith("/") or ".." in path.split("/"):
        raise SpecRefused(
            "payload_collection.path",
            f"'payload_collection.path' must be an absolute path without '..', not {shown(path)}.",
        )
    return {"id": identifier, "path": path}


def _check_payload(value: Any) -> dict[str, str]:
    payload = _object(value, "payload", ("url", "git", "ref", "sha256", "destination"))
    checked: dict[str, str] = {}
    for field in ("url", "git"):
        if payload.get(field) is not None:
            address = _line(payload[field], f"payload.{field}", 2048)
            if not https_host(address):
                raise SpecRefused(
                    f"payload.{field}",
                    f"'payload.{field}' must be an https address without user name or password, "
                    f"not {shown(address)}.",
                )
            checked[field] = address
    if payload.get("ref") is not None:
        checked["ref"] = _matching(
            payload["ref"], "payload.ref", GIT_REF, 256, "a branch, tag or commit"
        )
        if ".." in checked["ref"]:
            raise SpecRefused(
                "payload.ref", f"'payload.ref' must not hold '..': {shown(checked['ref'])}."
            )
        if "git" not in checked:
            raise SpecRefused("payload.ref", "'payload.ref' goes with 'payload.git' only.")
    if payload.get("sha256") is not None:
        checked["sha256"] = _matching(
            payload["sha256"], "payload.sha256", SHA256, 64, "64 hexadecimal digits in lower case"
        )
        if "git" in checked:
            raise SpecRefused(
                "payload.sha256",
                "'payload.sha256' does not go with 'payload.git'; pin the commit with 'payload.ref'.",
            )
    destination = _place(payload.get("destination", "/payload"), "payload.destination")
    _refuse_passing(destination, "payload.destination")
    taken = destination[1:] in SYSTEM_FOLDERS or destination in COVERED_FOLDERS
    if taken or (destination + "/").startswith(OWN_FOLDERS):
        raise SpecRefused(
            "payload.destination",
            f"'payload.destination' must not be the system folder {destination}; take one of its own.",
        )
    checked["destination"] = destination
    return checked


def _check_environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise SpecRefused("environment", f"'environment' must be an object, not {shown(value)}.")
    if len(value) > 200:
        raise SpecRefused(
            "environment",
            f"'environment' has {len(value)} variables; at most 200 are accepted.",
        )
    checked = {}
    for key, text in value.items():
        if not isinstance(key, str) or not VARIABLE.fullmatch(key) or len(key) > 128:
            raise SpecRefused(
                "environment",
                f"'environment' has a variable {shown(key)}; "
                "names are letters, digits and '_', not beginning with a digit.",
            )
        if key.startswith(("APPTAINER", "SINGULARITY")) or key in READONLY_VARIABLES:
            raise SpecRefused(
                f"environment.{key}",
                f"'environment.{key}' is reserved for Apptainer or the shell; take another name.",
            )
        checked[key] = _line(text, f"environment.{key}", 4096, allow_empty=True)
    return checked


def _module(value: Any, field: str) -> str:
    return _matching(value, field, MODULE, 256, "a Python module such as scipy.optimize")


def _check_verify(value: Any) -> dict[str, list[str]]:
    verify = _object(value, "verify", ("imports", "commands"))
    checked = {}
    if verify.get("imports") is not None:
        checked["imports"] = _each(verify["imports"], "verify.imports", _module)
    if verify.get("commands") is not None:
        checked["commands"] = _each(verify["commands"], "verify.commands", _command, 200)
    return checked


def _check_payload_sources(spec: dict[str, Any]) -> None:
    payload = spec["payload"]
    sources = [f"payload.{field}" for field in ("url", "git") if field in payload]
    if spec["payload_collection"]:
        sources.append("payload_collection")
    if len(sources) > 1:
        raise SpecRefused(
            sources[1], f"Only one payload is possible; leave out {' or '.join(sources)}."
        )
    if not sources and "sha256" in payload:
        raise SpecRefused(
            "payload.sha256",
            "'payload.sha256' needs 'payload.url' or 'payload_collection' beside it.",
        )


def _check_python(spec: dict[str, Any]) -> None:
    """Refuse a base whose tag says that Globus Compute cannot run in it; ``worker: none`` lifts this."""
    if spec["worker"] == "none" or brings_python(spec) or spec["base"]["bootstrap"] != "docker":
        return
    version = python_version_of_tag(spec["base"]["image"])
    if version and version < OLDEST_PYTHON:
        raise SpecRefused(
            "base.image",
            f"'base.image' {spec['base']['image']} has Python {version[0]}.{version[1]}, and Globus "
            "Compute needs 3.10 or newer: take a newer base such as python:3.11-slim, "
            "or 'worker: none' for an image without Globus Compute.",
            "python_too_old",
        )
