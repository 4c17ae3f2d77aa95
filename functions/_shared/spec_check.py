"""The whole spec, checked field by field and normalised. The client checks as a courtesy; this is the guard."""

from __future__ import annotations

import json
import re
from typing import Any

from .grammars import (
    IMAGE_NAME,
    LABEL_KEY,
    LIBRARY_REFERENCE,
    MODULE,
    SHA256,
    TAG,
    UUID,
    VARIABLE,
    WORKER,
    is_absolute_path,
    python_version_of_tag,
    split_image_reference,
)
from .spec_machine import check_machine
from .spec_payload import check_collection, check_payload, check_payload_sources, file_of
from .spec_software import DEFAULT_CHANNELS, brings_python, check_software
from .spec_words import (
    SpecRefused,
    command_of,
    each_of,
    line_of,
    matching,
    meant,
    object_of,
    place_of,
    refuse_covered,
    shown,
    texts_of,
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
    "pip_requirements": "",
    "pip_extra_index_urls": [],
    "conda": [],
    "conda_channels": DEFAULT_CHANNELS,
    "conda_environment": "",
    "spack": {},
    "payload_collection": None,
    "payload": {},
    "files": [],
    "machine": {},
    "environment": {},
    "labels": {},
    "mounts": [],
    "commands": [],
    "runscript": [],
    "verify": {},
    "worker": "endpoint",
    "locked": None,
    "force": False,
    "run_endpoint": None,
    "build_endpoint": None,
}
FIELDS = frozenset({"name", "base", *DEFAULTS})
GPU_MAKES = ("nvidia", "amd")
OWN_LABELS = ("cib-flows.", "org.label-schema.")
# Variables that a shell does not let anyone set: the image's environment script would end at them.
READONLY_VARIABLES = frozenset(
    {"BASHOPTS", "BASH_VERSINFO", "EUID", "GID", "PPID", "SHELLOPTS", "UID"}
)


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
                f"Unknown field {shown(field)}{meant(field, FIELDS)}; "
                f"known fields are {', '.join(sorted(FIELDS))}.",
            )
    full = {**DEFAULTS, **{k: v for k, v in spec.items() if v is not None}}
    checked: dict[str, Any] = {
        "name": matching(full.get("name"), "name", IMAGE_NAME, 64, _NAME_WANTED),
        "tag": matching(full["tag"], "tag", TAG, 64, _NAME_WANTED),
        "description": line_of(full["description"], "description", 500, allow_empty=True),
        "base": _check_base(full.get("base")),
        **check_software(full),
        "payload_collection": check_collection(full["payload_collection"]),
        "payload": check_payload(full["payload"]),
        "files": each_of(full["files"], "files", file_of, 100),
        "machine": check_machine(full["machine"]),
        "environment": _check_environment(full["environment"]),
        "labels": _check_labels(full["labels"]),
        "mounts": each_of(full["mounts"], "mounts", _mount, 100),
        "commands": each_of(full["commands"], "commands", command_of, 200),
        "runscript": each_of(full["runscript"], "runscript", _runscript_word, 100),
        "verify": _check_verify(full["verify"]),
        "worker": matching(
            full["worker"], "worker", WORKER, 32, "'endpoint', 'none' or a version such as 4.19.0"
        ),
        "locked": _check_locked(full["locked"]),
        "force": full["force"],
    }
    for field in ("build_endpoint", "run_endpoint"):
        value = full[field]
        checked[field] = (
            None if value is None else matching(value, field, UUID, 36, "an endpoint's UUID")
        )
    if not isinstance(checked["force"], bool):
        raise SpecRefused("force", f"'force' must be true or false, not {shown(full['force'])}.")
    if checked["runscript"] and checked["worker"] != "none":
        raise SpecRefused(
            "runscript",
            "'runscript' goes with 'worker: none' only: Globus Compute starts its worker as the image's "
            "command, which must run as it is given.",
        )
    check_payload_sources(checked)
    _check_python(checked)
    return checked


_NAME_WANTED = "lower-case letters and digits, joined by '.', '_' or '-'"


def _mount(value: Any, field: str) -> str:
    place = place_of(value, field)
    refuse_covered(place, field)
    return place


def _check_base(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        raise SpecRefused(
            "base", f"'base' must be an object such as {{\"image\": {shown(value)}}}, not a string."
        )
    if value is None:
        raise SpecRefused(
            "base", '\'base\' is missing; give for instance {"image": "python:3.11-slim"}.'
        )
    base = object_of(value, "base", ("bootstrap", "image"))
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
    image = line_of(base["image"], "base.image", 512)
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


def _check_environment(value: Any) -> dict[str, str]:
    wanted = "names are letters, digits and '_', not beginning with a digit"
    checked = texts_of(value, "environment", VARIABLE, wanted, (200, 128, 4096))
    for key, text in checked.items():
        if key.startswith(("APPTAINER", "SINGULARITY")) or key in READONLY_VARIABLES:
            raise SpecRefused(
                f"environment.{key}",
                f"'environment.{key}' is reserved for Apptainer or the shell; take another name.",
            )
        found = re.search(r"\$\{?[A-Za-z_]+\}?", text) if key.endswith("PATH") else None
        if found:
            raise SpecRefused(
                f"environment.{key}",
                f"'environment.{key}' must list its folders in full, since values are literal and "
                f"{shown(found[0])} would stay as it is written; not {shown(text)}.",
            )
    return checked


def _check_labels(value: Any) -> dict[str, str]:
    wanted = "names are letters, digits and ._/-, beginning with a letter"
    checked = texts_of(value, "labels", LABEL_KEY, wanted, (100, 128, 1024))
    for key, text in checked.items():
        if key.lower().startswith(OWN_LABELS):
            raise SpecRefused(
                f"labels.{key}",
                f"'labels.{key}' is written by the build itself; take another name.",
            )
        # nothing can be quoted in a recipe's labels, and blanks at the ends do not survive
        if not text.strip() or "{{" in text or text != text.strip() or text.endswith("\\"):
            raise SpecRefused(
                f"labels.{key}",
                f"'labels.{key}' must be a text without '{{{{', blanks at its ends or a backslash as its "
                f"last character, not {shown(text)}.",
            )
    return checked


def _runscript_word(value: Any, field: str) -> str:
    return line_of(value, field, 4096, allow_empty=True)


def _module(value: Any, field: str) -> str:
    return matching(value, field, MODULE, 256, "a Python module such as scipy.optimize")


def _check_verify(value: Any) -> dict[str, Any]:
    verify = object_of(value, "verify", ("imports", "commands", "files", "gpu", "mpi"))
    checked: dict[str, Any] = {}
    if verify.get("imports") is not None:
        checked["imports"] = each_of(verify["imports"], "verify.imports", _module)
    if verify.get("commands") is not None:
        checked["commands"] = each_of(verify["commands"], "verify.commands", command_of, 200)
    if verify.get("files") is not None:
        checked["files"] = each_of(verify["files"], "verify.files", place_of, 200)
    if verify.get("gpu") is not None:
        if verify["gpu"] not in GPU_MAKES:
            raise SpecRefused(
                "verify.gpu",
                f"'verify.gpu' must be one of {', '.join(GPU_MAKES)}, not {shown(verify['gpu'])}.",
            )
        checked["gpu"] = verify["gpu"]
    if verify.get("mpi") is not None:
        if not isinstance(verify["mpi"], bool):
            raise SpecRefused(
                "verify.mpi", f"'verify.mpi' must be true or false, not {shown(verify['mpi'])}."
            )
        checked["mpi"] = verify["mpi"]
    return checked


def _check_locked(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not (SHA256.fullmatch(value) or UUID.fullmatch(value)):
        raise SpecRefused(
            "locked",
            f"'locked' must be a container id or the sha256 of a lock, not {shown(value)}; "
            "'cib-flows build --locked' fills it in.",
        )
    return value


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
