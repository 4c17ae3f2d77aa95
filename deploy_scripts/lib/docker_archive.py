"""Wrap a root file system as a Docker archive, the format of `docker save`.

    python3 docker_archive.py ROOTFS.tar OUTPUT.tar NAME:TAG COMMAND...

`ROOTFS.tar` becomes the one layer, byte for byte; `COMMAND` is what the image runs by default.
The result can be pushed to a registry (`skopeo copy docker-archive:OUTPUT.tar docker://...`) or be
the base of a build (`Bootstrap: docker-archive`). Standard library only.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import sys
import tarfile
from pathlib import Path

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def image_config(layer_sha256: str, command: list[str]) -> bytes:
    """Return the image configuration: platform, environment, default command, the one layer."""
    machine = platform.machine()
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Env": [f"PATH={SEARCH_PATH}"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_sha256}"]},
        "history": [{"created_by": "cib-flows base image"}],
    }
    return json.dumps(config, sort_keys=True).encode()


def write_docker_archive(rootfs: Path, output: Path, reference: str, command: list[str]) -> None:
    """Write `output`, replacing it only when complete. `reference` is NAME:TAG."""
    layer_sha256 = file_sha256(rootfs)
    config = image_config(layer_sha256, command)
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{layer_sha256}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]

    aside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                add_bytes(archive, "manifest.json", json.dumps(manifest).encode())
                add_bytes(archive, config_name, config)
                layer = tarfile.TarInfo(layer_name)
                layer.size = rootfs.stat().st_size
                with rootfs.open("rb") as content:
                    archive.addfile(layer, content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(output)
    finally:
        aside.unlink(missing_ok=True)


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a small file to the archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    if len(arguments) < 4 or ":" not in arguments[2]:
        print(
            "usage: docker_archive.py ROOTFS.tar OUTPUT.tar NAME:TAG COMMAND...",
            file=sys.stderr,
        )
        return 2
    rootfs, output, reference, *command = arguments
    try:
        write_docker_archive(Path(rootfs), Path(output), reference, command)
    except OSError as error:
        print(f"docker_archive.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
