"""A sweep over everything that belongs to a signed container: one changed byte, wherever it is, is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.sif import DESCRIPTOR, HEADER, sif_objects

from .conftest import PLAIN, LocalGlobus
from .test_trust import beside, keys

__all__ = ["keys"]

# Many verifications in one process, as the endpoint's function does each.
VERIFIER = """
import json, sys
from cib_flows.functions.verify_container import verify_container
for line in sys.stdin:
    print(json.dumps(verify_container(line.strip(), only_trust=True)), flush=True)
"""
# What a verification without the image's hash relies on: the engine's own signature check.
SIGNER = """
import json, sys
from cib_flows.functions._shared.signing import Signer
from cib_flows.functions._shared.site import load_site
for line in sys.stdin:
    print(json.dumps(Signer(load_site()).signer_of(line.strip())), flush=True)
"""
# What no signature of a SIF covers, and what changes nothing of what an image is: where the header says that the
# data begin (each object has its own place), and the number of the signature itself.
MEANINGLESS = ("header data place", "last byte")
TEXTS = (".json", ".sbom.json", ".provenance.json", ".lock.json", ".sha256")
# Fields of the header and of a descriptor that say where and what; the rest is padding, times and owners.
SIGNATURE_TYPE = 0x4005
HEADER_FIELDS = {"magic": 32, "version": 42, "uuid": 48, "table place": 96, "data place": 112}
DESCRIPTOR_FIELDS = {"type": 0, "used": 4, "id": 5, "group": 9, "offset": 17, "size": 25}


@pytest.fixture(scope="module")
def site(start_globus: Callable[..., LocalGlobus], keys: tuple[str, str]) -> LocalGlobus:
    return start_globus(sign_key=keys[0], verify_keys=[keys[1]], require_signature=True)


@pytest.fixture(scope="module")
def made(site: LocalGlobus) -> dict[str, Any]:
    return site.built({**PLAIN, "name": "swept"})


def asker(site: LocalGlobus, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "CIB_FLOWS_SITE": str(site.home / "site.json")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str], line: str) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def flip(path: Path, offset: int) -> None:
    mode = path.stat().st_mode
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 1]))
    path.chmod(mode)


def image_places(path: Path) -> dict[str, int]:
    """Header, every field of each descriptor, and begin, middle and end of each object."""
    places = {f"header {name}": offset for name, offset in HEADER_FIELDS.items()}
    with path.open("rb") as stream:
        table = HEADER.unpack(stream.read(HEADER.size))[9]
    for number, item in enumerate(sif_objects(str(path))):
        start = table + number * DESCRIPTOR.size
        for name, offset in DESCRIPTOR_FIELDS.items():
            places[f"descriptor {number + 1} {name}"] = start + offset
        if item.kind == SIGNATURE_TYPE:
            del places[f"descriptor {number + 1} id"]
        for name, offset in (("begin", 0), ("middle", item.size // 2), ("end", item.size - 1)):
            places[f"object {number + 1} {name}"] = item.offset + offset
    places["last byte"] = path.stat().st_size - 1
    return places


def test_every_file_and_every_part_of_the_image(site: LocalGlobus, made: dict[str, Any]) -> None:
    places = [(".sif", name, offset) for name, offset in image_places(beside(made, ".sif")).items()]
    parts = image_places(beside(made, ".seal")).items()
    places += [(".seal", name, at) for name, at in parts if name not in MEANINGLESS]
    for ending in TEXTS:
        size = beside(made, ending).stat().st_size
        places += [(ending, f"byte {at}", at) for at in range(0, size, max(1, size // 12))]
        places.append((ending, "last byte", size - 1))
    verifier = asker(site, VERIFIER)
    unnoticed = []
    try:
        assert ask(verifier, "swept")["trust"]["sealed"] is True
        for ending, name, offset in places:
            path = beside(made, ending)
            flip(path, offset)
            try:
                answer = ask(verifier, made["container_id"])
            finally:
                flip(path, offset)
            codes = ("image_changed", "not_trusted", "container_not_found")
            if answer["ok"] or answer["error"]["code"] not in codes:
                unnoticed.append((ending, name, answer))
        assert ask(verifier, "swept")["trust"]["sealed"] is True
    finally:
        verifier.communicate()
    assert unnoticed == []
    assert len(places) > 150


def test_the_signature_alone_covers_all_that_an_image_is(
    site: LocalGlobus, made: dict[str, Any], tmp_path: Path
) -> None:
    """Whoever changes an image and names it by its new digest has a sound list, and still no signature."""
    copy = tmp_path / "copy.sif"
    copy.write_bytes(Path(made["path"]).read_bytes())
    signer = asker(site, SIGNER)
    try:
        assert ask(signer, str(copy)) is not None
        accepted = []
        for name, offset in image_places(copy).items():
            flip(copy, offset)
            if ask(signer, str(copy)) is not None:
                accepted.append(name)
            flip(copy, offset)
        assert ask(signer, str(copy)) is not None
    finally:
        signer.communicate()
    assert set(accepted) <= set(MEANINGLESS)
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == made["sha256"]
