"""A conda channel made from nothing.

Two versions of a package that installs one program, two others that need one of them each, a Python that leads
to Debian's own, and one that asks for a GPU.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

# A prefix of its own around an interpreter that stands elsewhere, as a virtual environment has it.
PYTHON = {
    "bin/python": Path("/usr/bin/python3"),
    "bin/python3": Path("/usr/bin/python3"),
    "pyvenv.cfg": "home = /usr/bin\ninclude-system-site-packages = false\n",
    "lib/python3.11/site-packages/README.txt": "packages go here\n",
}
PROGRAM = "#!/bin/sh\necho hello from conda\n"


def make_channel(root: Path) -> Path:
    """Write ``hello-program``, ``hello-user``, ``python`` and ``gpu-program`` as a noarch channel."""
    noarch = root / "noarch"
    (root / "linux-64").mkdir(parents=True)
    noarch.mkdir()
    packages = {
        **_package(noarch, "hello-program", "1.0", [], {"bin/hello-program": PROGRAM}),
        **_package(
            noarch, "hello-user", "2.1", ["hello-program >=1.0"], {"share/hello.txt": "hi\n"}
        ),
        # an older one, and who cannot do with a newer
        **_package(noarch, "hello-program", "0.5", [], {"bin/hello-program": PROGRAM}),
        **_package(noarch, "old-user", "1.0", ["hello-program <1.0"], {"share/old.txt": "hi\n"}),
        **_package(noarch, "python", "3.11.2", [], PYTHON),
        **_package(noarch, "gpu-program", "1.0", ["__cuda >=12"], {"share/gpu.txt": "hi\n"}),
    }
    for folder, found in ((noarch, packages), (root / "linux-64", {})):
        text = json.dumps(
            {"info": {"subdir": folder.name}, "packages": found, "packages.conda": {}}
        )
        (folder / "repodata.json").write_text(text)
    return root


def _package(
    folder: Path,
    name: str,
    version: str,
    depends: list[str],
    contents: Mapping[str, str | Path],
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
                "path_type": "softlink" if isinstance(text, Path) else "hardlink",
                "sha256": hashlib.sha256(str(text).encode()).hexdigest(),
                "size_in_bytes": len(str(text).encode()),
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
            if isinstance(text, Path):
                entry.type, entry.linkname = tarfile.SYMTYPE, str(text)
                archive.addfile(entry)
                continue
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
