"""The site profile: what an administrator decides for one endpoint, never what a run asks for."""

from __future__ import annotations

import copy
import json
import math
import os
from typing import Any

from .places import node_path
from .results import StepFailed
from .spec_words import shown

SITE_VARIABLE = "CIB_FLOWS_SITE"
DEFAULT_ROOT = "~/.cib-flows/containers"
DEFAULT_BUILD_TIME_LIMIT_S = 4 * 3600
DEFAULT_VERIFY_TIME_LIMIT_S = 1800
DEFAULT_STAGE_LIMIT_BYTES = 20 * 1024**3
DEFAULT_STAGE_MAX_AGE_S = (
    7 * 24 * 3600
)  # then the distribution's updates are worth a build from nothing
DEFAULT_PAYLOAD_LIMIT_BYTES = 20 * 1024**3

# key -> the type its value must have
SITE_KEYS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "root": (str,),
    "shared_roots": (list,),
    "retention": (dict,),
    "staging": (dict, type(None)),
    "root_collection": (dict, type(None)),
    "payload_hosts": (list,),
    "payload_limit_bytes": (int,),
    "unpack_in_memory": (bool,),
    "most_builds": (int, type(None)),
    "stage_limit_bytes": (int,),
    "stage_max_age_s": (int, float),
    "ca_bundle": (str, type(None)),
    "registry_mirrors": (dict,),
    "registry_login_hosts": (list,),
    "tools": (str, type(None)),
    "pip_index_url": (str, type(None)),
    "pip_extra_index_urls": (list,),
    "proxies": (dict,),
    "tmpdir": (str, type(None)),
    "cachedir": (str, type(None)),
    "mksquashfs_args": (str, type(None)),
    "build_time_limit_s": (int, float),
    "verify_time_limit_s": (int, float),
    "environment": (dict,),
    "module_paths": (list,),
    "modules": (list,),
    "fakeroot": (str,),
    "sign_key": (str, type(None)),
    "keyring": (str, type(None)),
    "sign_passphrase_file": (str, type(None)),
    "verify_keys": (list,),
    "allowed_signers": (list,),
    "require_signature": (bool,),
    "allowed_bases": (list,),
    "maximum_age_s": (int, float, type(None)),
}
# key of an object -> what the object must have
NEEDED_PARTS = {
    "staging": ("collection_id", "collection_path", "path"),
    "root_collection": ("collection_id", "collection_path"),
}
# Numbers of which 0 makes sense.
MAY_BE_NOTHING = ("stage_limit_bytes", "stage_max_age_s", "maximum_age_s")
# How Apptainer becomes root in a build: what it finds by itself, or what a site must ask for or avoid.
FAKEROOT_OPTIONS: dict[str, tuple[str, ...]] = {
    "auto": (),
    "always": ("--fakeroot",),
    "ignore-subuid": ("--fakeroot", "--ignore-subuid"),
    "ignore-fakeroot-command": ("--fakeroot", "--ignore-fakeroot-command"),
}


SITE_DEFAULTS: dict[str, Any] = {
    "name": "default",
    "root": DEFAULT_ROOT,
    # catalogues of a project or the site, whose containers are listed and found after one's own
    "shared_roots": [],
    # what 'containers gc' may remove, see RETENTION
    "retention": {},
    "staging": None,
    # the root itself as a Globus collection has it, so that images need not be copied to be published
    "root_collection": None,
    "payload_hosts": [],
    "payload_limit_bytes": DEFAULT_PAYLOAD_LIMIT_BYTES,
    "unpack_in_memory": False,
    "most_builds": None,
    "stage_limit_bytes": DEFAULT_STAGE_LIMIT_BYTES,
    "stage_max_age_s": DEFAULT_STAGE_MAX_AGE_S,
    "ca_bundle": None,
    "registry_mirrors": {},
    # who may see APPTAINER_DOCKER_USERNAME and APPTAINER_DOCKER_PASSWORD
    "registry_login_hosts": ["docker.io"],
    "tools": None,
    "pip_index_url": None,
    "pip_extra_index_urls": [],
    "proxies": {},
    "tmpdir": None,
    "cachedir": None,
    "mksquashfs_args": None,
    "build_time_limit_s": DEFAULT_BUILD_TIME_LIMIT_S,
    "verify_time_limit_s": DEFAULT_VERIFY_TIME_LIMIT_S,
    "environment": {},
    "module_paths": [],
    "modules": [],
    "fakeroot": "auto",
    # who signs images here, whose signatures count, and what may be used
    "sign_key": None,
    "keyring": None,
    "sign_passphrase_file": None,
    "verify_keys": [],
    "allowed_signers": [],
    "require_signature": False,
    "allowed_bases": [],
    "maximum_age_s": None,
}


def load_site() -> dict[str, Any]:
    """The profile named by ``CIB_FLOWS_SITE``, with every key present; defaults where nothing is said.

    Raises :class:`StepFailed` ``site_invalid``.
    """
    path = os.environ.get(SITE_VARIABLE)
    site = {**copy.deepcopy(SITE_DEFAULTS), **(_read_profile(path) if path else {})}
    # both spellings are in use: {"https": …} and {"https_proxy": …}
    site["proxies"] = {
        str(key).lower().removesuffix("_proxy"): str(value)
        for key, value in site["proxies"].items()
    }
    site["root"] = os.path.realpath(node_path(site["root"], "root"))
    shared = [node_path(path, "shared_roots") for path in site["shared_roots"]]
    site["shared_roots"] = [os.path.realpath(path) for path in shared]
    return site


def _read_profile(path: str) -> dict[str, Any]:
    """What the file says, each key known and each value fit."""
    try:
        with open(path, encoding="utf-8") as stream:
            given = json.load(stream)
    except (OSError, ValueError) as error:
        raise StepFailed(
            "site_invalid",
            f"The endpoint's site profile {path} cannot be read: {error}.",
            f"Ask the endpoint's administrator to mend the file that {SITE_VARIABLE} names.",
        ) from None
    if not isinstance(given, dict):
        raise StepFailed("site_invalid", f"The site profile {path} must be a JSON object.")
    for key, value in given.items():
        if key not in SITE_KEYS:
            known = ", ".join(sorted(SITE_KEYS))
            raise StepFailed(
                "site_invalid",
                f"The site profile {path} has an unknown key '{key}'; known are {known}.",
            )
        if not _fits(key, value):
            raise StepFailed(
                "site_invalid",
                f"The site profile {path} has a wrong value for '{key}': it must be {_wanted(key)}, not "
                f"{shown(value)}.",
            )
    return given


def _wanted(key: str) -> str:
    """What :func:`_fits` takes, in words."""
    if key == "fakeroot":
        return f"one of {', '.join(FAKEROOT_OPTIONS)}"
    if key in NEEDED_PARTS:
        return f"an object of texts with {', '.join(NEEDED_PARTS[key])}"
    number = "from 0 on" if key in MAY_BE_NOTHING else "above 0"
    words = {
        str: "a text",
        bool: "true or false",
        int: f"a whole number {number}",
        float: f"a number {number}",
        list: "a list of texts",
        dict: "an object of numbers" if key == "retention" else "an object of texts",
        type(None): "null",
    }
    kinds = [kind for kind in SITE_KEYS[key] if kind is not int or float not in SITE_KEYS[key]]
    return " or ".join(words[kind] for kind in kinds)


def _fits(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return SITE_KEYS[key] == (bool,)  # True is an int too, but no number was meant
    if not isinstance(value, SITE_KEYS[key]):
        return False
    if key == "fakeroot":
        return value in FAKEROOT_OPTIONS
    if isinstance(value, (int, float)):
        return math.isfinite(value) and (value > 0 or (value == 0 and key in MAY_BE_NOTHING))
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    if key == "retention" and isinstance(value, dict):
        return all(item is None or type(item) in (int, float) for item in value.values())
    if isinstance(value, dict):
        needed = NEEDED_PARTS.get(key, ())
        return all(isinstance(item, str) for item in value.values()) and all(
            name in value for name in needed
        )
    return True
