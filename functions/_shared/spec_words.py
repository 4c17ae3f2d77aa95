"""The words that a spec is checked with: strings, lines, lists and paths, and the refusal of anything else."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection
from typing import Any

from .grammars import has_control_characters, is_absolute_path

# Mounted from the host, or lent by the build, while %post runs: what is written there is not in the image.
COVERED_FOLDERS = ("/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/mnt")
OWN_FOLDERS = ("/.singularity.d/", "/opt/cib/")


# A password or token in an address: what is refused for it must not show it in logs and on screens.
USER_IN_ADDRESS = re.compile(r"://(?:[^\s\"/@]*:[^\s\"]*|[^\s\"/]*)@")
SECRET_IN_QUERY = re.compile(
    r"([?&;][\w.-]*(?:token|key|secret|sig|signature|password|passwd|credential)[\w.-]*=)[^&\s\"#]+",
    re.IGNORECASE,
)


# What an object would look like, for whoever gave something else in its place.
OBJECT_EXAMPLES = {
    "environment": '{"OMP_NUM_THREADS": "4"}',
    "files[]": '{"path": "/etc/motd", "content": "hello"}',
    "labels": '{"org.example.group": "imaging"}',
    "machine": '{"microarchitecture": "x86_64_v3"}',
    "machine.gpu": '{"kind": "cuda", "version": "12.4"}',
    "machine.mpi": '{"implementation": "openmpi"}',
    "payload": '{"git": "https://example.org/code.git", "ref": "v1.0"}',
    "payload_collection": '{"id": "a collection\'s UUID", "path": "/~/data/"}',
    "spack": '{"specs": ["hdf5@1.14"]}',
    "verify": '{"imports": ["numpy"]}',
}


class SpecRefused(Exception):
    """A spec cannot be accepted: ``field`` is a path such as ``base.image``, ``message`` one sentence."""

    def __init__(self, field: str, message: str, code: str = "spec_invalid") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.code = code


def shown(value: Any) -> str:
    """A value as a message may show it: short, printable, quoted, without passwords in addresses."""
    text = without_secrets(json.dumps(value, ensure_ascii=True))
    return text if len(text) <= 80 else f"{text[:60]}..."


def without_secrets(text: str) -> str:
    return SECRET_IN_QUERY.sub(r"\1***", USER_IN_ADDRESS.sub("://***@", text))


def string_of(value: Any, field: str, limit: int) -> str:
    if not isinstance(value, str):
        raise SpecRefused(field, f"'{field}' must be a string, not {shown(value)}.")
    if not value:
        raise SpecRefused(field, f"'{field}' must not be empty.")
    if len(value) > limit:
        raise SpecRefused(field, f"'{field}' is {len(value)} characters long; at most {limit} fit.")
    return value


def line_of(value: Any, field: str, limit: int, allow_empty: bool = False) -> str:
    if allow_empty and value == "":
        return ""
    text = string_of(value, field, limit)
    if has_control_characters(text):
        raise SpecRefused(
            field, f"'{field}' must be one line without control characters, not {shown(text)}."
        )
    return text


def text_of(value: Any, field: str, limit: int) -> str:
    """Lines of text, which may be empty; no control characters but the ends of lines and tabs."""
    if value == "":
        return ""
    text = string_of(value, field, limit).replace("\r\n", "\n")
    if has_control_characters(text.replace("\n", "").replace("\t", "")):
        raise SpecRefused(
            field, f"'{field}' must be plain text without control characters, not {shown(text)}."
        )
    return text


def matching(value: Any, field: str, grammar: re.Pattern[str], limit: int, wanted: str) -> str:
    if value is None:
        raise SpecRefused(field, f"'{field}' is missing; give {wanted}.")
    text = line_of(value, field, limit)
    if not grammar.fullmatch(text):
        raise SpecRefused(field, f"'{field}' must be {wanted}, not {shown(text)}.")
    return text


def each_of(
    value: Any, field: str, check: Callable[[Any, str], Any], limit: int = 500
) -> list[Any]:
    example = OBJECT_EXAMPLES.get(f"{field}[]")
    if example and not isinstance(value, list):
        raise SpecRefused(
            field, f"'{field}' must be a list such as [{example}], not {shown(value)}."
        )
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


def texts_of(
    value: Any, field: str, key: re.Pattern[str], wanted: str, limits: tuple[int, int, int]
) -> dict[str, str]:
    """An object of one-line texts; ``limits`` are of its entries, a key's length and a text's length."""
    require_object(value, field)
    if len(value) > limits[0]:
        raise SpecRefused(
            field, f"'{field}' has {len(value)} entries; at most {limits[0]} are accepted."
        )
    checked = {}
    for name, text in value.items():
        if not isinstance(name, str) or not key.fullmatch(name) or len(name) > limits[1]:
            raise SpecRefused(field, f"'{field}' has a name {shown(name)}; {wanted}.")
        checked[name] = line_of(text, f"{field}.{name}", limits[2], allow_empty=True)
    return checked


def require_object(value: Any, field: str) -> None:
    if not isinstance(value, dict):
        example = OBJECT_EXAMPLES.get(re.sub(r"\[\d+\]", "[]", field), "{}")
        raise SpecRefused(
            field, f"'{field}' must be an object such as {example}, not {shown(value)}."
        )


def object_of(value: Any, field: str, known: tuple[str, ...]) -> dict[str, Any]:
    require_object(value, field)
    for key in value:
        if key not in known:
            raise SpecRefused(
                f"{field}.{key}",
                f"'{field}' has an unknown field {shown(key)}{meant(key, known)}; "
                f"known are {', '.join(known)}.",
            )
    given: dict[str, Any] = value
    return given


def meant(given: Any, known: Collection[str]) -> str:
    """`` (is "pip" meant?)`` where a name is nearly a known one; else nothing."""
    word = str(given)[:64].lower()
    near = difflib.get_close_matches(word, known, 1, 0.7) or [
        name for name in sorted(known) if len(word) > 2 and name.startswith(word)
    ]
    return f' (is "{near[0]}" meant?)' if near else ""


def place_of(value: Any, field: str) -> str:
    text = line_of(value, field, 512)
    if not is_absolute_path(text.rstrip("/")):
        raise SpecRefused(
            field,
            f"'{field}' must be an absolute path of letters, digits and ._@+=:,~- without '..', "
            f"such as /scratch, not {shown(text)}.",
        )
    return text.rstrip("/")


def refuse_covered(place: str, field: str) -> None:
    """Some folders of the host, or of the build alone, cover the image's own while it is built."""
    for covered in COVERED_FOLDERS:
        if place.startswith(covered + "/"):
            raise SpecRefused(
                field,
                f"'{field}' must not be below {covered}, which the image itself does not keep; "
                f"take another place than {shown(place)}.",
            )


def command_of(value: Any, field: str) -> str:
    if isinstance(value, str) and "\n" in value.strip("\n"):
        raise SpecRefused(
            field,
            f"'{field}' must be one line; give each command an entry of its own, "
            "or put a script into the payload.",
        )
    return line_of(value.strip("\n") if isinstance(value, str) else value, field, 8192)
