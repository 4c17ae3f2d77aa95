"""A conda channel made from nothing: one package that installs one program, and one that needs it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

PROGRAM = "#!/bin/sh\necho hello from conda\n"


def make_channel(root: Path) -> Path:
    """Write ``hello-program`` 1.0 and ``hello-user`` 2.1, which depends on it, as a noarch channel."""
    noarch = root / "noarch"
    (root / "linux-64").mkdir(parents=True)
    noarch.mkdir()
    packages = {
        **_package(noarch, "hello-program", "1.0", [], {"bin/hello-program": PROGRAM}),
        **_package(
            noarch, "hello-user", "2.1", ["hello-program >=1.0"], {"share/hello.txt": "hi\n"}
        ),
    }
    for folder, found in ((noarch, packages), (root / "linux-64", {})):
        text = json.dumps(
            {"info": {"subdir": folder.name}, "packages": found, "packages.conda": {}}
        )
        (folder / "repodata.json").write_text(text)
    return root


def _package(
    folder: Path, name: str, version: str, depends: list[str], contents: dict[str, str]
) -> dict[str, dict[str, object]]:
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": depends,
        "subdir": "noarch",
        "noarch": "generic",
        "timestamp": 1_700_000_000_000,
    }
    paths = {
        "paths": [
            {
                "_path": path,
                "path_type": "hardlink",
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "size_in_bytes": len(text.encode()),
            }
            for path, text in contents.items()
        ],
        "paths_version": 1,
    }
    file_name = f"{name}-{version}-0.tar.bz2"
    with tarfile.open(folder / file_name, "w:bz2") as archive:
        for path, text in {
            **contents,
            "info/index.json": json.dumps(index),
            "info/paths.json": json.dumps(paths),
            "info/files": "".join(f"{path}\n" for path in contents),
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            entry.mode = 0o755 if path.startswith("bin/") else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    raw = (folder / file_name).read_bytes()
    return {
        file_name: {
            **index,
            "size": len(raw),
            "md5": hashlib.md5(raw).hexdigest(),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
    }
