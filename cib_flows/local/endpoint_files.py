"""Put the local endpoint's configuration into a home, as an administrator would install it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from cib_flows.bundle import IMAGE_CHECK, image_check
from cib_flows.errors import UsageError
from cib_flows.local.home import Home, write_aside

__all__ = ["CONFIG", "SCHEMA", "TEMPLATE", "install_endpoint"]

CONFIG = "config.yaml"
TEMPLATE = "user_config_template.yaml.j2"
SCHEMA = "user_config_schema.json"

_INSTALLED = (
    ".installed.json"  # digests of what we wrote: a file that differs was edited, and is left alone
)
_SAFE_ROOT = re.compile(r"/[A-Za-z0-9._/+@~-]+")


def install_endpoint(home: Home, site: Mapping[str, Any]) -> list[Path]:
    """Write the endpoint's files into the home; returns those left alone because they were
    edited.

    The schema admits images below the site's ``root`` only. Raises :class:`UsageError` for a root
    that a container's launch line cannot carry.
    """
    root = str(site["root"]).rstrip("/")
    if not _SAFE_ROOT.fullmatch(root) or ".." in root or "//" in root:
        raise UsageError(
            f"The site profile's root {root!r} must be an absolute path of letters, digits and . _ - + @ ~ only."
        )
    source = files("cib_flows.endpoints") / "local"
    contents = {name: (source / name).read_text("utf-8") for name in (CONFIG, TEMPLATE, SCHEMA)}
    # The pattern stands inside a JSON string, so the escaped root is escaped once more.
    escaped = json.dumps(re.escape(root))[1:-1]
    contents[SCHEMA] = contents[SCHEMA].replace("<image-root>", escaped)
    check = str(home.endpoint_dir / IMAGE_CHECK)
    contents[TEMPLATE] = contents[TEMPLATE].replace("<check-image>", check)
    contents[IMAGE_CHECK] = image_check()
    record = home.endpoint_dir / _INSTALLED
    try:
        written: dict[str, str] = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        written = {}
    edited = []
    for name, text in contents.items():
        target = home.endpoint_dir / name
        if target.exists() and written.get(name) != _digest(target.read_text("utf-8")):
            edited.append(target)
            continue
        write_aside(target, text)
        written[name] = _digest(text)
    write_aside(record, json.dumps(written, indent=2) + "\n")
    return edited


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
