"""A container spec: loaded, translated where it is in the older tool's words, checked, and written back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cib_flows.errors import SpecError
from cib_flows.functions._shared.identity import spec_digest
from cib_flows.functions._shared.spec_check import DEFAULTS, check_spec
from cib_flows.functions._shared.spec_words import SpecRefused

__all__ = ["ContainerSpec", "input_schema"]

# custom-image-builder's own names (ncsa/CustomImageBuilder 1.0.1, image_builder.py) beside ours.
OLDER_FIELDS = frozenset(
    {
        "image_file_name",
        "base_image_type",
        "base_image",
        "payload_url",
        "pip_packages",
        "conda_packages",
        "apt_packages",
    }
)
# More values than the largest spec can hold; a few lines of YAML aliases can mean billions.
MAX_NODES = 20_000


@lru_cache(maxsize=1)
def input_schema() -> dict[str, Any]:
    """The flow's input schema: the form in the web app, the contract, and the validator here."""
    text = files("cib_flows.flows").joinpath("build_container/input_schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@dataclass(frozen=True)
class ContainerSpec:
    """What an image should hold. Make one with :meth:`from_file` or :meth:`from_dict`, which check it.

    ``fields`` is the spec exactly as the flow takes it, without the defaults.
    """

    fields: Mapping[str, Any] = field(repr=False)
    name: str
    tag: str

    @classmethod
    def from_file(cls, path: str | Path) -> ContainerSpec:
        """Read a YAML or JSON file. Raises :class:`SpecError` with one sentence for anything wrong."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise SpecError(f"The spec {path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise SpecError(f"The spec {path} is not a text file in UTF-8.") from None
        return cls.from_text(text, str(path))

    @classmethod
    def from_text(cls, text: str, name: str = "the spec") -> ContainerSpec:
        """Read YAML or JSON text; ``name`` is what messages call it."""
        import yaml  # only files need it

        try:
            fields = _json_object(text)
            if fields is None:
                fields = yaml.load(text, Loader=_strict_loader())  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f" in line {mark.line + 1}" if mark else ""
            reason = getattr(error, "problem", None) or "it cannot be parsed"
            raise SpecError(f"{name} is not valid YAML or JSON{place}: {reason}.") from None
        except RecursionError:
            raise SpecError(f"{name} is nested too deeply.") from None
        except ValueError as error:
            raise SpecError(f"{name} has a value that its own tag does not fit: {error}.") from None
        if _size(fields, {}) > MAX_NODES:
            raise SpecError(f"{name} repeats itself too often by aliases.")
        if not isinstance(fields, dict):
            raise SpecError(
                f"{name} must hold fields such as 'name' and 'base', not {fields!r:.60}."
            )
        return cls.from_dict(fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ContainerSpec:
        """Check a mapping, in our words or in custom-image-builder's.

        Raises :class:`SpecError` whose message names the field, what was wrong and what would be right.
        """
        given = dict(fields)
        if OLDER_FIELDS & given.keys():
            given = translate_older(given)
        try:
            checked = check_spec(given)
        except SpecRefused as refused:
            raise SpecError(refused.message, refused.field) from None
        kept = {
            key: value
            for key, value in checked.items()
            if value is not None and (key not in DEFAULTS or value != DEFAULTS[key])
        }
        if checked["payload"] == {"destination": "/payload"}:
            kept.pop("payload", None)
        _validate(kept)
        return cls(fields=kept, name=checked["name"], tag=checked["tag"])

    def to_dict(self) -> dict[str, Any]:
        """A copy of the fields as the flow's input takes them."""
        copy: dict[str, Any] = json.loads(json.dumps(self.fields))
        return copy

    def complete(self) -> dict[str, Any]:
        """The spec with every default filled in, as the functions see it."""
        return check_spec(self.to_dict())

    @property
    def digest(self) -> str:
        """sha256 of what is asked for; the same for specs that differ only in order or written defaults."""
        return spec_digest(self.complete())


def translate_older(fields: Mapping[str, Any]) -> dict[str, Any]:
    """custom-image-builder's seven spec fields in our words. Fields of both kinds are refused together.

    Its payload was always a git repository, cloned into the image's root under its own name.
    """
    mixed = sorted(fields.keys() - OLDER_FIELDS, key=str)
    if mixed:
        older = min(OLDER_FIELDS & fields.keys())
        raise SpecError(
            f"Field {mixed[0]!r} does not go with custom-image-builder's field {older!r}; "
            "write the spec in one of the two vocabularies.",
            mixed[0],
        )
    for required in ("image_file_name", "base_image"):
        if not isinstance(fields.get(required), str) or not fields[required]:
            raise SpecError(f"{required!r} is missing or not a string.", required)
    base_type = fields.get("base_image_type", "docker")
    if not isinstance(base_type, str):
        raise SpecError(
            f"'base_image_type' must be a string, not {base_type!r:.60}.", "base_image_type"
        )
    spec: dict[str, Any] = {
        # it named a file, in which capitals were allowed; image names have none
        "name": fields["image_file_name"].lower().removesuffix(".sif"),
        "base": {"bootstrap": base_type.lower(), "image": fields["base_image"]},
    }
    for theirs, ours in (
        ("pip_packages", "pip"),
        ("conda_packages", "conda"),
        ("apt_packages", "apt"),
    ):
        if fields.get(theirs) is not None:
            if isinstance(fields[theirs], str):
                raise SpecError(f"{theirs!r} must be a list, such as [{fields[theirs]!r}].", theirs)
            spec[ours] = (
                list(fields[theirs]) if isinstance(fields[theirs], tuple) else fields[theirs]
            )
    url = fields.get("payload_url")
    if url:
        if not isinstance(url, str):
            raise SpecError(f"'payload_url' must be a string, not {url!r:.60}.", "payload_url")
        try:
            path = urlsplit(url).path
        except ValueError:
            raise SpecError(
                f"'payload_url' is not an address: {url!r:.60}.", "payload_url"
            ) from None
        repository = path.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
        spec["payload"] = {"git": url, "destination": f"/{repository or 'payload'}"}
    return spec


def _validate(fields: Mapping[str, Any]) -> None:
    """The schema's own word, so that nothing passes here that the service would refuse."""
    import jsonschema  # costs a tenth of a second, which commands without a spec need not pay

    validator = jsonschema.Draft7Validator(input_schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(fields))
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path) or "the spec"
        raise SpecError(f"'{place}' was refused: {error.message:.300}.", place)


def _json_object(text: str) -> Any:
    """The object in a JSON text, None when it is not JSON. YAML knows neither tabs nor JSON's escapes."""
    if not text.lstrip().startswith("{"):
        return None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise SpecError(f"The field {twice!r} stands twice.", twice)
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError:
        return None


def _size(node: Any, known: dict[int, float]) -> float:
    """How many values ``node`` holds, aliases counted wherever they stand; endless when it holds itself."""
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")
        children = node.values() if isinstance(node, dict) else node
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _strict_loader() -> Any:
    """A safe YAML loader that refuses a key given twice and reads ``2024-01-01`` and ``3.10`` as they stand.

    No field of a spec is a number or a date: only true, false and null mean something else than their text.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {}
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
    )

    def mapping(loader: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} must be a string", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return Loader
