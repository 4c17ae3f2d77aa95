"""The smallest base that Apptainer can build from: this node's own shell, in a docker archive made on the fly."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile

TINY_SHELL = "/bin/sh"
# For a script that Apptainer binds into the image where it uses the fakeroot command.
FAKEROOT_NEEDS = ("cat", "cut", "getopt", "sed")
# What a contained build has in its /dev.
PLAIN_DEVICE = re.compile(
    r"console|fd|full|mqueue|null|ptmx|pts|random|shm|std(err|in|out)|tty|urandom|zero"
)
# Says who the build is by the shell's own words only. Every node has a /usr/share, and this image has none.
TINY_RECIPE = """\
Bootstrap: docker-archive
From: {archive}

%post
    while read -r inside outside count; do echo "cib-map $inside $outside $count"; done < /proc/self/uid_map
    for process in /proc/[0-9]*; do [ ! -d "$process/root/usr/share" ] || echo cib-host-shows; done
    for device in /dev/*; do echo "cib-device ${{device#/dev/}}"; done
    echo proved > /cib-proof
"""


def shell_files() -> dict[str, str]:
    """``{path in the image: path here}`` of the shell, of what the fakeroot command calls, and of the
    libraries that they are linked with.
    """
    found = {TINY_SHELL: TINY_SHELL}
    for name in FAKEROOT_NEEDS:
        if tool := shutil.which(name, path="/usr/bin:/bin"):
            found[f"/usr/bin/{name}"] = tool
    for program in list(found.values()):
        # what ldd does: the loader lists "libc.so.6 => /lib/libc.so.6 (0x…)" and "/lib64/ld-linux.so.2 (0x…)";
        # a static program runs instead, with no arguments and no input
        listed = subprocess.run(
            [program],
            env={"PATH": "/usr/bin:/bin", "LD_TRACE_LOADED_OBJECTS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout
        libraries = re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listed, re.MULTILINE)
        found.update({path: path for path in libraries})
    return found


def write_tiny_archive(path: str) -> None:
    """Write the archive, of some two megabytes, to ``path``."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        files = shell_files()
        folders = {"/etc", "/tmp", "/proc", "/sys", "/dev", "/mnt", "/root", "/home", "/var/tmp"}
        for name in [*files, *folders]:
            while (name := os.path.dirname(name)) != "/":
                folders.add(name)
        for name in sorted(folders):
            made = tarfile.TarInfo(name.strip("/"))
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(made)
        for name, source in sorted(files.items()):
            with open(source, "rb") as stream:
                _add(tar, name.strip("/"), stream.read(), 0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        _add(tar, "etc/group", b"root:x:0:\n", 0o644)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            platform.machine(), platform.machine()
        ),
        "os": "linux",
        "config": {"Cmd": [TINY_SHELL]},
        "rootfs": {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": ["cib-tiny:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        _add(tar, "layer.tar", layer.getvalue(), 0o644)
        _add(tar, "config.json", json.dumps(config).encode(), 0o644)
        _add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    made = tarfile.TarInfo(name)
    made.size, made.mode = len(content), mode
    tar.addfile(made, io.BytesIO(content))


def way_to_root(log: str) -> str:
    """How the tiny build became root, from what it printed."""
    maps = re.findall(r"^cib-map (\d+) (\d+) (\d+)$", log, re.MULTILINE)
    if not maps:
        return ""
    command = "under the fakeroot command" in log
    if len(maps) == 1 and int(maps[0][2]) >= 2**31:
        return "as the real root"
    if len(maps) > 1 or int(maps[0][2]) >= 65536:
        return "with subordinate ids"
    return "in a root-mapped namespace" + (" with the fakeroot command" if command else "")


def shows_host(log: str) -> bool:
    """Whether the tiny build found the host's files behind a process that it could see."""
    return bool(re.search(r"^cib-host-shows$", log, re.MULTILINE))


def shows_devices(log: str) -> bool:
    """Whether the tiny build saw the node's own /dev."""
    seen = re.findall(r"^cib-device (\S+)$", log, re.MULTILINE)
    return not all(PLAIN_DEVICE.fullmatch(name) for name in seen)
