"""A hostile recipe's own commands, which run as root of a namespace: what they reach of the endpoint's account."""

from __future__ import annotations

import ctypes
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cib_flows.functions._shared.processes import clean_environment
from cib_flows.functions._shared.singularity import BUILD_ISOLATION
from cib_flows.functions._shared.site import FAKEROOT_OPTIONS
from cib_flows.functions._shared.tiny_image import (
    TINY_RECIPE,
    shows_devices,
    shows_host,
    write_tiny_archive,
)

from .conftest import PLAIN, LocalGlobus

LOOK = """\
import ctypes, glob, os, sys
private, marker, segment = sys.argv[1:]
found = glob.glob("/proc/[0-9]*/root" + private)
libc = ctypes.CDLL(None)
for folder in (b"/tmp", b"/var/tmp"):
    # root of the namespace may take away what was mounted last, and look at what is below
    found += [f"uncovered {folder}" for _ in range(9) if libc.umount2(folder, 2) == 0 and
              os.path.exists(os.path.join(folder.decode(), marker))]
found += glob.glob("/dev/shm/" + marker) + glob.glob("/dev/pts/[0-9]*") + glob.glob("/sys/*")
found += [f"/dev/{n}" for n in os.listdir("/dev") if n in ("fuse", "kmsg", "kvm", "loop0", "net", "vda", "sda")]
if libc.shmget(int(segment), 1, 0) != -1:
    found.append("the shared memory of another program")
sys.exit(f"reached {found}" if found else 0)
"""


@pytest.fixture
def marker() -> Iterator[str]:
    """A name that stands in every folder of the node that a build might be shown."""
    name = f"cib-test-{uuid.uuid4()}"
    places = [Path(folder, name) for folder in ("/tmp", "/var/tmp", "/dev/shm")]
    for place in places:
        place.write_text("")
    yield name
    for place in places:
        place.unlink()


@pytest.fixture
def segment() -> Iterator[int]:
    """The key of a piece of System V shared memory."""
    libc, key = ctypes.CDLL(None), uuid.uuid4().int & 0x7FFFFFFF
    made = libc.shmget(key, 4096, 0o1600)
    assert made != -1
    yield key
    libc.shmctl(made, 0, None)


def test_nothing_leads_out_of_the_build(globus: LocalGlobus, marker: str, segment: int) -> None:
    """Root of the build's namespace looks for the node's files, devices, settings and shared memory; the
    engine's own processes stand on the node's file system, with the account's rights to all of it.
    """
    private = globus.root / "private"
    private.write_text("a token\n")
    private.chmod(0o600)
    look = {"path": "/usr/local/bin/look.py", "content": LOOK}
    command = f"python3 /usr/local/bin/look.py {private} {marker} {segment}"
    globus.built({"name": "looks-out", **PLAIN, "files": [look], "commands": [command]})


@pytest.mark.parametrize("mode", sorted(FAKEROOT_OPTIONS))
def test_the_tiny_build_tells_whether_the_host_shows(tmp_path: Path, mode: str) -> None:
    """What doctor builds, in every way to become root."""
    archive, recipe = tmp_path / "tiny.tar", tmp_path / "tiny.def"
    write_tiny_archive(str(archive))
    recipe.write_text(TINY_RECIPE.format(archive=archive))

    def log_of(variables: dict[str, str]) -> str:
        done = subprocess.run(
            ["apptainer", "build", "--force", *FAKEROOT_OPTIONS[mode], "x.sif", str(recipe)],
            cwd=tmp_path,
            env={**clean_environment({}), "APPTAINER_CACHEDIR": str(tmp_path), **variables},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    apart, plain = log_of(BUILD_ISOLATION), log_of({})
    assert not shows_host(apart)
    assert not shows_devices(apart)
    assert shows_devices(plain)
    if not shows_host(plain):
        pytest.skip("this engine gives %post processes of its own unasked")


# Whatever image the engine holds open, by way of any process.
SPOIL = """\
import glob, os
for path in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        size = os.stat(path).st_size
        with open(path, "r+b") as image:
            if image.read(64).startswith((b"#!/usr/bin/env run-singularity", b"#!/usr/bin/env run-apptainer")):
                image.seek(size - 1)
                image.write(b"Z")
                print("spoiled", os.readlink(path))
    except (OSError, ValueError):
        pass
"""


def test_a_build_cannot_write_to_the_image_it_starts_from(globus: LocalGlobus) -> None:
    base = globus.built({"name": "a-base", **PLAIN, "commands": ["touch /base"]})
    before = Path(base["path"]).read_bytes()
    spoil = {"path": "/usr/local/bin/spoil.py", "content": SPOIL}
    spec = {
        "name": "spoiler",
        "base": {"bootstrap": "localimage", "image": base["path"]},
        "worker": "none",
        "files": [spoil],
        "commands": ["test -e /base", "python3 /usr/local/bin/spoil.py"],
    }
    globus.built(spec)
    assert Path(base["path"]).read_bytes() == before
