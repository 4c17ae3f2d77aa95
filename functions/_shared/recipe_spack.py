"""A first stage in which Spack compiles what a spec asks of it.

Written after what ``spack containerize`` of Spack 0.23 writes. Where the tests run there is no image with Spack,
so a stand-in takes its place: the stages and what passes between them are tested, Spack's own words are not.
"""

from __future__ import annotations

import json
from typing import Any

from .recipe_shell import quote
from .spec_software import SPACK_BUILDER

SPACK_VIEW = "/opt/view"

SPACK_STAGE = """\
Bootstrap: docker
From: {builder}
Stage: spack

%post
    set +x -e
    umask 022
    echo '==> spack'
    mkdir -p /opt/spack-environment /opt/software
    cd /opt/spack-environment
    printf '%s\\n' {environment} > spack.yaml
    . /opt/spack/share/spack/setup-env.sh
    spack env activate .
    spack install --fail-fast
    spack gc -y
    spack env deactivate
    find -L {view}/ -type f -exec readlink -f '{{}}' \\; |
        xargs file -i | grep 'charset=binary' |
        grep 'x-executable\\|x-archive\\|x-sharedlib' |
        awk -F: '{{print $1}}' | xargs -r strip -S || true

"""

SPACK_FILES = """\
%files from spack
    /opt/software
    {view}
"""

SPACK_ARRIVED = """\
    echo 'note: what Spack is told follows its own manual; cib-flows has tested it with a stand-in for Spack only'
    [ -d {view} ] || refuse command_failed 'Nothing arrived from the Spack stage.'
    printf '%s\\n' {environment} > /opt/cib/spack.yaml
"""


def spack_environment(spec: dict[str, Any]) -> str:
    """The spack.yaml, on one line as JSON, which is YAML too."""
    spack, machine = spec["spack"], spec["machine"]
    specs = list(spack["specs"])
    mpi, gpu = machine.get("mpi"), machine.get("gpu")
    if mpi:
        specs.append(
            "@".join([mpi["implementation"], *([mpi["version"]] if "version" in mpi else [])])
        )
    if gpu:
        package = {"cuda": "cuda", "rocm": "hip"}[gpu["kind"]]
        specs.append(f"{package}@{gpu['version']}")
    require = []
    target = spack.get("target") or machine.get("microarchitecture")
    if target:
        require.append(f"target={target}")
    if "compiler" in spack:
        require.append(f"%{spack['compiler']}")
    content: dict[str, Any] = {
        "specs": specs,
        "concretizer": {"unify": True, "reuse": True},
        "config": {"install_tree": {"root": "/opt/software"}},
        "view": SPACK_VIEW,
    }
    if require:
        content["packages"] = {"all": {"require": require}}
    return json.dumps({"spack": content})


def spack_stage(spec: dict[str, Any], builder: str | None) -> str:
    """The first stage; ``builder`` replaces the spec's own image where a site mirrors or a digest pins it."""
    image = builder or spec["spack"].get("builder") or SPACK_BUILDER
    environment = quote(spack_environment(spec))
    return SPACK_STAGE.format(builder=image, environment=environment, view=SPACK_VIEW)


def spack_files() -> str:
    return SPACK_FILES.format(view=SPACK_VIEW)


def spack_arrived(spec: dict[str, Any]) -> str:
    """In the second stage: that it came, and what it was."""
    return SPACK_ARRIVED.format(environment=quote(spack_environment(spec)), view=SPACK_VIEW)
