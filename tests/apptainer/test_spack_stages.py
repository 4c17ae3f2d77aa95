"""The two stages of a Spack recipe, with a stand-in for Spack: what the first one makes arrives in the second.

The real Spack needs an image of its own and hours; what is tested here is everything around it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cib_flows.functions._shared.recipe import render_text
from cib_flows.functions._shared.spec_check import check_spec

# Answers the words of the recipe, and leaves what Spack would: a tree of packages and a view of links into it.
STAND_IN = """\
spack() {
    echo "spack $*" >> /opt/spack-environment/said
    case "$1" in
        install)
            mkdir -p /opt/software/zlib-1.3/bin /opt/._view/abc/bin
            printf '#!/bin/sh\\necho compiled\\n' > /opt/software/zlib-1.3/bin/tool
            chmod +x /opt/software/zlib-1.3/bin/tool
            ln -s /opt/software/zlib-1.3/bin/tool /opt/._view/abc/bin/tool
            ln -s ._view/abc /opt/view
            cp /opt/spack-environment/spack.yaml /opt/software/asked.json ;;
    esac
}
"""


@pytest.fixture
def base() -> str:
    """An image without anything special, as this machine names it."""
    if os.geteuid() == 0 or not shutil.which("apptainer"):
        pytest.skip("needs Apptainer and an ordinary user; deploy_scripts/test.sh has both")
    site = Path(os.environ["CIB_TEST_SITE"]) if "CIB_TEST_SITE" in os.environ else None
    mirrors = json.loads(site.read_text()).get("registry_mirrors", {}) if site else {}
    return f"{mirrors.get('docker.io', 'docker.io')}/library/debian:12-slim"


def build(folder: Path, name: str, recipe: str) -> Path:
    (folder / f"{name}.def").write_text(recipe)
    image = folder / f"{name}.sif"
    squash = ["--mksquashfs-args", "-comp zstd -Xcompression-level 1"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("APPTAINER")}
    done = subprocess.run(
        ["apptainer", "build", *squash, str(image), str(folder / f"{name}.def")],
        env={**environment, "APPTAINER_TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return image


def test_what_the_first_stage_compiles_arrives_in_the_second(tmp_path: Path, base: str) -> None:
    builder = build(
        tmp_path,
        "builder",
        f"Bootstrap: docker\nFrom: {base}\n\n%post\n    mkdir -p /opt/spack/share/spack\n"
        + "".join(
            f"    printf '%s\\n' {shlex.quote(line)} >> /opt/spack/share/spack/setup-env.sh\n"
            for line in STAND_IN.splitlines()
        ),
    )
    spec = check_spec(
        {
            "name": "spacky",
            "base": {"image": "debian:12-slim"},
            "worker": "none",
            "spack": {"specs": ["zlib@1.3"], "target": "x86_64", "compiler": "gcc@12"},
            "commands": ["tool > /opt/compiled.txt"],
        }
    )
    recipe = render_text(spec, {}, base)
    recipe, found = re.subn(
        r"\ABootstrap: docker\nFrom: .*\n", f"Bootstrap: localimage\nFrom: {builder}\n", recipe
    )
    assert found == 1
    image = build(tmp_path, "final", recipe)
    shown = subprocess.run(
        ["apptainer", "--silent", "run", "--containall", str(image), "/bin/sh", "-c",
         "tool; cat /opt/compiled.txt /opt/software/asked.json; ls /opt/spack-environment || true"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    printed, made, asked = shown.stdout.splitlines()
    assert (printed, made) == ("compiled", "compiled")
    assert json.loads(asked)["spack"]["specs"] == ["zlib@1.3"]
    assert json.loads(asked)["spack"]["packages"]["all"]["require"] == ["target=x86_64", "%gcc@12"]
    assert "No such file" in shown.stderr, "only what was compiled is taken along"
