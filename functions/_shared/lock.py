"""The lock of an image: its base and every package in it, so exactly that they can be installed again.

A lock is a JSON file beside the image's record. It is made from what the finished image itself lists, never
from what was asked for. What cannot be known is said in its ``unknown`` sentences.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .grammars import SHA256, https_host, split_image_reference
from .image_facts import DEBIAN_ARCHITECTURE, DEBIAN_NAME, DEBIAN_VERSION
from .results import StepFailed, shorten

LOCK_VERSION = 1
MAX_LOCK_BYTES = 4 * 1024 * 1024
PIP_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
PIP_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!+-]*")
PIP_HASH = re.compile(r"sha256:[0-9a-f]{64}")
CONDA_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
CONDA_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.!+-]*")
# Of the spec what says where and how to run, not what to install.
NOT_LOCKED = ("force", "build_endpoint", "run_endpoint", "locked")


def make_lock(
    plan: dict[str, Any],
    spec: dict[str, Any],
    verification: dict[str, Any],
    inventory: dict[str, Any],
) -> dict[str, Any]:
    """The lock of a proved image. ``inventory`` is what :func:`proof.prove` found in it."""
    asked = {key: value for key, value in spec.items() if key not in NOT_LOCKED}
    payload = plan["payload"]
    if payload.get("kind") == "git":
        # the branch may have moved when the image is built again
        asked["payload"] = {**asked["payload"], "ref": payload["commit"]}
    lock: dict[str, Any] = {
        "lock_version": LOCK_VERSION,
        "sif_sha256": verification["sif_sha256"],
        "squashfs_sha256": verification["squashfs_sha256"],
        "spec": asked,
        "base": {"image": plan["base"]["resolved"], "digest": plan["base"]["digest"]},
        "payload_digest": plan["payload_digest"],
        "worker": plan["worker"],
        "engine": plan["engine"],
        "machine": plan["machine"],
        "python": verification["python"],
        "debian": inventory["debian"],
        "pip": _pip_entries(inventory["pip"]),
        "conda": _conda_entries(inventory["conda"]),
    }
    lock["unknown"] = _unknown_of(lock)
    return lock


def _pip_entries(found: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """What the image's Python listed, as far as it is well formed: an image may answer anything."""
    if found is None:
        return None
    entries = []
    for item in found:
        name, version, url = item.get("name"), item.get("version"), item.get("url")
        if not (_is_word(PIP_NAME, name) and _is_word(PIP_VERSION, version)):
            continue
        hashes = [h for h in item.get("hashes") or [] if _is_word(PIP_HASH, h)]
        entry = {"name": name, "version": version, "hashes": sorted(set(hashes))}
        entry["in_base"] = item.get("in_base") is True
        if isinstance(url, str) and https_host(url.removeprefix("git+")):
            entry["url"] = url
        entries.append(entry)
    return sorted(entries, key=lambda e: str(e["name"]))


def _conda_entries(found: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    if found is None:
        return None
    entries = []
    for item in found:
        entry = {key: item.get(key) for key in ("name", "version", "build")}
        if not _is_conda_package(entry):
            continue
        sha256, url = item.get("sha256"), str(item.get("url") or "")
        entry["subdir"] = str(item["subdir"]) if _is_word(CONDA_WORD, item.get("subdir")) else ""
        entry["sha256"] = sha256 if _is_word(SHA256, sha256) else None
        entry["channel"] = _channel_of(url, str(entry["subdir"]))
        entries.append(entry)
    return sorted(entries, key=lambda e: str(e["name"]))


def _is_conda_package(entry: dict[str, Any]) -> bool:
    return _is_word(CONDA_NAME, entry.get("name")) and all(
        _is_word(CONDA_WORD, entry.get(key)) for key in ("version", "build")
    )


def _channel_of(url: str, subdir: str) -> str:
    """The channel's own address, from that of a package in it; empty for one that was installed from a file."""
    channel, separator, _ = url.rpartition(f"/{subdir}/")
    return channel if separator and https_host(channel) else ""


def _is_word(grammar: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and bool(grammar.fullmatch(value))


def _unknown_of(lock: dict[str, Any]) -> list[str]:
    told = []
    if not lock["base"]["digest"]:
        told.append("The base image's digest is not known, so the base is named but not pinned.")
    if lock["debian"] is None:
        told.append("The image has no dpkg; packages of other distributions are not listed.")
    else:
        bare = sum(1 for entry in lock["debian"] if not entry["sha256"])
        if bare:
            told.append(
                f"{bare} of {len(lock['debian'])} Debian packages have no sha256: they came with the base image, "
                "or apt's lists no longer named their files. The base's digest covers the former."
            )
    if lock["pip"] is None:
        told.append("Python packages are not listed, since the spec asks for none.")
    else:
        ours = [e for e in lock["pip"] if not e["in_base"]]
        bare = sum(1 for e in ours if not e["hashes"] and "url" not in e)
        if bare:
            told.append(
                f"{bare} of {len(ours)} Python packages have no hash: they make the environment itself (pip and "
                "its like), or were not installed by uv from an index."
            )
    for entry in lock["conda"] or []:
        if not entry["sha256"]:
            told.append("Some conda packages have no sha256 in conda's own records.")
            break
    return told


def check_lock(lock: Any) -> dict[str, Any]:
    """``lock`` as it came from outside, or :class:`StepFailed` ``lock_invalid``: its words reach a recipe."""
    if not isinstance(lock, dict) or lock.get("lock_version") != LOCK_VERSION:
        raise StepFailed(
            "lock_invalid",
            f"This is no lock of version {LOCK_VERSION}.",
            "Take the file that 'cib-flows containers lock' prints.",
        )
    for field in ("spec", "base", "worker"):
        if not isinstance(lock.get(field), dict):
            raise _broken_lock(field)
    if len(json.dumps(lock)) > MAX_LOCK_BYTES:
        raise StepFailed("lock_invalid", f"The lock is larger than {MAX_LOCK_BYTES} bytes.")
    digest = lock["base"].get("digest")
    if digest and not _is_word(PIP_HASH, digest):
        raise _broken_lock("base")
    for name, version in lock["worker"].items():
        if not (_is_word(PIP_NAME, name) and _is_word(PIP_VERSION, version)):
            raise _broken_lock("worker")
    for entry in _lock_entries(lock, "debian"):
        if not (
            _is_word(DEBIAN_NAME, entry.get("name"))
            and _is_word(DEBIAN_VERSION, entry.get("version"))
            and _is_word(DEBIAN_ARCHITECTURE, entry.get("architecture"))
        ):
            raise _broken_lock("debian")
    if _pip_entries(_lock_entries(lock, "pip")) != _lock_entries(lock, "pip"):
        raise _broken_lock("pip")
    for entry in _lock_entries(lock, "conda"):
        channel = entry.get("channel")
        is_sound = not channel or (isinstance(channel, str) and bool(https_host(channel)))
        if not (_is_conda_package(entry) and is_sound and " " not in str(channel)):
            raise _broken_lock("conda")
    return lock


def _lock_entries(lock: dict[str, Any], field: str) -> list[dict[str, Any]]:
    found = lock.get(field)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise _broken_lock(field)
    return found


def _broken_lock(field: str) -> StepFailed:
    return StepFailed(
        "lock_invalid",
        f"The lock's '{field}' is not as 'cib-flows containers lock' writes it.",
        "Take the file as it was printed.",
    )


def locked_base(spec: dict[str, Any], lock: dict[str, Any]) -> dict[str, Any]:
    """``spec`` with the base that the lock pins, where a registry can be asked for it by digest."""
    base, digest = spec["base"], lock["base"]["digest"]
    parts = split_image_reference(base["image"])
    if base["bootstrap"] not in ("docker", "oras") or not digest or not parts:
        return spec
    return {**spec, "base": {**base, "image": f"{parts[0]}/{parts[1]}@{digest}"}}


def lent_lock(lock: dict[str, Any]) -> dict[str, str]:
    """The files by which a build installs exactly what a lock lists; the recipe's shell reads them."""
    ours = [entry for entry in lock["pip"] or [] if not entry["in_base"]]
    hashed, plain = [], []
    for entry in ours:
        pin = (
            f"{entry['name']} @ {entry['url']}"
            if "url" in entry
            else f"{entry['name']}=={entry['version']}"
        )
        if entry["hashes"] and "url" not in entry:
            hashed.append(" \\\n    ".join([pin, *(f"--hash={h}" for h in entry["hashes"])]))
        else:
            plain.append(pin)
    conda: list[str] = []
    for channel in dict.fromkeys(e["channel"] for e in lock["conda"] or [] if e["channel"]):
        conda += ["-c", channel]
    conda += [f"{e['name']} =={e['version']} {e['build']}" for e in lock["conda"] or []]
    preferences = [
        # a priority above 1000 lets apt take an older version than the one that is there
        f"Package: {e['name']}\nPin: version {e['version']}\nPin-Priority: 1001\n"
        for e in lock["debian"] or []
    ]
    return {
        "preferences": "\n".join(preferences),
        "hashed": "".join(f"{line}\n" for line in hashed),
        "plain": "".join(f"{line}\n" for line in plain),
        "conda": "".join(f"{word}\n" for word in conda) if lock["conda"] else "",
    }


def lock_differences(wanted: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """What an image has otherwise than the lock that it was built from, in words."""
    told = []
    for field, what in (("base", "the base's digest"), ("payload_digest", "the payload")):
        was, now = wanted.get(field), made.get(field)
        if field == "base":
            was, now = wanted["base"]["digest"], made["base"]["digest"]
        if was != now:
            told.append(f"{what} ({_shown_version(was)} became {_shown_version(now)})")
    for kind in ("debian", "pip", "conda"):
        before, after = package_table(wanted.get(kind)), package_table(made.get(kind))
        told += [
            f"{kind} {name} ({_shown_version(before.get(name))} became {_shown_version(after.get(name))})"
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
    return told


def _shown_version(value: Any) -> str:
    return shorten(str(value), 40) if value else "absent"


def package_table(entries: list[dict[str, Any]] | None) -> dict[str, str]:
    """Name -> version of a lock's list; Debian's names with a foreign architecture, conda's versions with build."""
    table = {}
    for entry in entries or []:
        name, version = str(entry["name"]), str(entry["version"])
        if "architecture" in entry:
            name = f"{name}:{entry['architecture']}"
        if "build" in entry:
            version = f"{version}={entry['build']}"
        table[name] = version
    return table
