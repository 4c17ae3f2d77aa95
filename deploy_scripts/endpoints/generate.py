"""Write the files of every batch site from the texts in ``batch`` and a table of what differs: edit these, not those.

    python deploy_scripts/endpoints/generate.py            # rewrite what is out of date
    python deploy_scripts/endpoints/generate.py --check    # change nothing; exit 1 and name the files that are

An administrator reads and installs plain files, so nothing here is needed on an endpoint. A word in angle
brackets (``<account>``) is left in the files for ``deploy_scripts/install_endpoint.sh``, and listed in the
site's ``settings.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# Alphabet of what reaches a submit script: no blank, no quote, nothing that a shell reads.
WORD = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
NOT_WORD = r"[^A-Za-z0-9_.-]"

GPU_OPTION = """
    {{ {'"nvidia"': "--nv", '"amd"': "--rocm"}[gpu] if gpu is defined else "" }}"""
SERIALIZERS = """\
  # Source text and JSON only: nothing that a caller pickled is ever loaded here.
  allowed_serializers:
    - globus_compute_sdk.serialize.PureSourceTextInspect
    - globus_compute_sdk.serialize.JSONData"""


@dataclass(frozen=True)
class Setting:
    """A word that the installer fills in. Without a default it must be given."""

    meaning: str
    default: str | None = None
    required: bool = True


@dataclass(frozen=True)
class BatchSite:
    """What one site has of its own. ``build`` and ``run`` are lines of their provider, ``unsure`` goes into
    the README: what no public page says and an administrator must check."""

    title: str
    provider: str
    common: tuple[str, ...]
    build: tuple[str, ...]
    run: tuple[str, ...]
    queue_field: str
    interface: str
    settings: dict[str, Setting]
    profile: dict[str, Any]
    documented: tuple[str, ...]
    unsure: tuple[str, ...]
    modules: tuple[str, ...] = ()
    job_end: str = ""
    run_engine: tuple[str, ...] = ()
    template_notes: tuple[str, ...] = field(default=())


COMMON_SETTINGS = {
    "environment": Setting("folder of the Python environment that holds globus-compute-endpoint"),
    "site-profile": Setting(
        "path of site.json once installed; readable by everybody who builds",
        default="<endpoint-dir>/site.json",
    ),
    "check-image": Setting(
        "path of check_image.py once installed; readable by everybody who runs functions",
        default="<endpoint-dir>/check_image.py",
    ),
    "image-root": Setting("folder on shared storage for images, records and run folders ('root')"),
    "build-walltime": Setting("walltime of a build job", default="06:00:00"),
    "build-limit-s": Setting("seconds that one build may take", default="14400"),
    "run-walltime": Setting(
        "walltime of a job for functions, unless the user asks otherwise", default="01:00:00"
    ),
    "interface": Setting("network interface of the login node that compute nodes reach"),
}
SLURM_SETTINGS = {
    "account": Setting("Slurm account to charge", required=False),
    "partition": Setting("Slurm partition for builds and functions", required=False),
}
PBS_SETTINGS = {
    "account": Setting("PBS project to charge"),
    "queue": Setting("PBS queue for builds and functions"),
    "filesystems": Setting("file systems that a job needs, joined by colons"),
}
SLURM_END = "${SLURM_JOB_END_TIME:-$(( $(date +%s) + <build-walltime-s> ))}"
SLURM_JOB = (
    "exclusive: false",
    "# A node's failure ends the job; begun again by Slurm, it would have nothing to do.",
    'scheduler_options: "#SBATCH --no-requeue"',
)
PBS_END = "$(( $(date +%s) + <build-walltime-s> ))"
ALCF_PROXY = "http://proxy.alcf.anl.gov:3128"


def slurm_site(**changes: Any) -> BatchSite:
    fields: dict[str, Any] = {
        "provider": "SlurmProvider",
        "common": (),
        "build": SLURM_JOB,
        "run": (*SLURM_JOB, "cores_per_node: {{ cores | int if cores is defined else 'null' }}"),
        "queue_field": "partition",
        "interface": "<interface>",
        "settings": {**COMMON_SETTINGS, **SLURM_SETTINGS},
        "job_end": SLURM_END,
        **changes,
    }
    return BatchSite(**fields)


def pbs_site(**changes: Any) -> BatchSite:
    fields: dict[str, Any] = {
        "provider": "PBSProProvider",
        "queue_field": "queue",
        "interface": "<interface>",
        "settings": {**COMMON_SETTINGS, **PBS_SETTINGS},
        "job_end": PBS_END,
        **changes,
    }
    return BatchSite(**fields)


ALCF_LAUNCHER = (
    "launcher:",
    "  type: MpiExecLauncher",
    "  bind_cmd: --cpu-bind",
)
SITES: dict[str, BatchSite] = {
    "slurm": slurm_site(
        title="a Slurm cluster",
        profile={},
        documented=("Run by the tests of this project on a one-node Slurm 22.05.",),
        unsure=(
            "Whether compute nodes reach the network: if not, set 'proxies', 'registry_mirrors' and "
            "'pip_index_url' in site.json, or a partition for builds that does.",
            "Where node-local scratch is: set 'tmpdir' in site.json; otherwise the first of the job's "
            "TMPDIR and /var/tmp that is fit is taken.",
        ),
    ),
    "delta": slurm_site(
        title="Delta (NCSA)",
        common=("launcher:", "  type: SrunLauncher"),
        settings={
            **COMMON_SETTINGS,
            "account": Setting("Slurm account to charge"),
            "partition": Setting("Slurm partition", default="cpu"),
            "interface": Setting(
                "network interface of the login node that compute nodes reach", default="hsn0"
            ),
        },
        profile={},
        documented=(
            "Slurm with SrunLauncher and the partition 'cpu': the sample in the Globus Compute documentation.",
            "Apptainer is there without a module (a user's note of 2025).",
        ),
        unsure=(
            "The interface: the sample says 'eth6.560', NCSA's own image builder used 'hsn0', which is the "
            "default here.",
            "Whether unprivileged builds work on compute nodes: an older user's note says that building was "
            "not supported. Run 'cib-flows doctor' first.",
            "Node-local scratch and the network of compute nodes: no public page was found.",
        ),
    ),
    "polaris": pbs_site(
        title="Polaris (ALCF)",
        settings={
            **COMMON_SETTINGS,
            **PBS_SETTINGS,
            "filesystems": Setting(PBS_SETTINGS["filesystems"].meaning, default="home:grand:eagle"),
            "interface": Setting(
                "network interface of the login node that compute nodes reach", default="hsn0"
            ),
        },
        modules=(
            "module use /soft/modulefiles",
            "module load spack-pe-base",
            "module load apptainer",
        ),
        common=("cpus_per_node: 64", *ALCF_LAUNCHER, "  overrides: --depth=64 --ppn 1"),
        build=(
            "select_options: ngpus=4",
            "# Builds work on compute nodes only, and only in jobs that ask for fakeroot.",
            'scheduler_options: "#PBS -l singularity_fakeroot=true\\n#PBS -l filesystems=<filesystems>"',
        ),
        run=("select_options: ngpus=4", 'scheduler_options: "#PBS -l filesystems=<filesystems>"'),
        run_engine=("available_accelerators: 4",),
        profile={
            "module_paths": ["/soft/modulefiles"],
            "modules": ["spack-pe-base", "apptainer"],
            "fakeroot": "always",
            "tmpdir": "/local/scratch",
            "proxies": {"http": ALCF_PROXY, "https": ALCF_PROXY},
        },
        documented=(
            "Builds on compute nodes only, with '-l singularity_fakeroot=true' and '--fakeroot'; the modules; "
            "/local/scratch; the proxy: ALCF's user guide, August 2026.",
            "MpiExecLauncher, 'ngpus=4', the file systems and 'hsn0': the sample in the Globus Compute documentation.",
        ),
        unsure=(
            "Whether the proxy lets every registry and package index through.",
            "An error line about XALT and LD_PRELOAD is expected, and harmless.",
        ),
    ),
    "aurora": pbs_site(
        title="Aurora (ALCF)",
        settings={
            **COMMON_SETTINGS,
            **PBS_SETTINGS,
            "filesystems": Setting(PBS_SETTINGS["filesystems"].meaning, default="home:flare"),
        },
        modules=("module load apptainer",),
        common=("cpus_per_node: 208", *ALCF_LAUNCHER, "  overrides: --ppn 1"),
        build=('scheduler_options: "#PBS -l filesystems=<filesystems>"',),
        run=('scheduler_options: "#PBS -l filesystems=<filesystems>"',),
        profile={
            "modules": ["apptainer"],
            "fakeroot": "always",
            "proxies": {"http": ALCF_PROXY, "https": ALCF_PROXY},
        },
        documented=(
            "Builds on compute nodes with 'module load apptainer', '--fakeroot' and the proxy: ALCF's user "
            "guide, August 2026, which warns that apt-get can fail under fakeroot.",
            "208 processors, 'filesystems=home:flare', MpiExecLauncher: ALCF's examples.",
        ),
        unsure=(
            "ALCF runs no endpoint for other users on Aurora: this one serves the account that starts it.",
            "The interface that compute nodes reach: no public sample.",
            "The value of no_proxy that ALCF asks for; add it to 'proxies' as 'no'.",
            "Whether an option is needed for Intel GPUs in an image: 'gpu' is therefore not offered.",
        ),
    ),
}


def text_of(name: str) -> str:
    return (HERE / "batch" / name).read_text("utf-8")


def indented(lines: tuple[str, ...], blanks: int) -> str:
    return "\n".join(" " * blanks + line for line in lines)


def template(name: str, site: BatchSite) -> str:
    parts = {
        "TITLE": site.title[0].upper() + site.title[1:],
        "NAME": name,
        "SERIALIZERS": SERIALIZERS,
        "INTERFACE": site.interface,
        "PROVIDER": site.provider,
        "QUEUE": site.queue_field,
        "BUILD": indented(site.common + site.build, 4),
        "RUN": indented(site.common + site.run, 4),
        "RUN_ENGINE": indented(site.run_engine, 2),
        "MODULES": indented(site.modules, 6),
        "JOB_END": site.job_end,
        "GPU": "" if name == "aurora" else GPU_OPTION,
    }
    lines = []
    for line in text_of("user_config_template.yaml.j2").splitlines():
        words = line.strip()
        if words.startswith("@") and words.endswith("@") and not parts[words[1:-1]]:
            continue  # the site has nothing to say there
        lines.append(line)
    return filled("\n".join(lines) + "\n", parts)


def filled(text: str, parts: dict[str, str]) -> str:
    for key, value in parts.items():
        text = text.replace(f"@{key}@", value)
    return text


def schema(name: str, site: BatchSite) -> str:
    def word(description: str) -> dict[str, Any]:
        return {
            "description": description,
            "type": "string",
            "maxLength": 64,
            "pattern": WORD,
            # '$' also fits before a last line break
            "not": {"pattern": NOT_WORD},
        }

    properties: dict[str, Any] = {
        "profile": {
            "description": "What the tasks are: control steps, builds, or (default) the user's own functions.",
            "enum": ["control", "build", "run"],
        },
        "container_uri": {
            "description": "An image below the image root. It reaches a shell, hence the narrow alphabet.",
            "type": "string",
            "maxLength": 1024,
            "pattern": "^<image-root-pattern>/[A-Za-z0-9_][A-Za-z0-9._/+@-]*\\.sif$",
            "not": {"pattern": "\\.\\.|//|[^A-Za-z0-9._/+@~-]"},
        },
        "gpu": {
            "description": "Bind the host's GPU driver into the image.",
            "enum": ["nvidia", "amd"],
        },
        "account": word("What to charge, instead of the endpoint's default."),
        site.queue_field: word(f"Another {site.queue_field} than the endpoint's default."),
        "walltime": {
            "description": "Walltime of a job, as HH:MM:SS.",
            "type": "string",
            "maxLength": 8,
            "pattern": "^[0-9]{2}:[0-5][0-9]:[0-5][0-9]$",
            "not": {"const": "00:00:00"},  # which Slurm takes for no limit at all
        },
        "blocks": {
            "description": "Jobs at once, at most.",
            "type": "integer",
            "minimum": 1,
            "maximum": 10,
        },
    }
    if site.provider == "SlurmProvider":
        # jobs of PBS sites have whole nodes
        properties["cores"] = {
            "description": "Processors of a job, instead of the partition's default.",
            "type": "integer",
            "minimum": 1,
            "maximum": 1024,
        }
    if name == "aurora":
        del properties["gpu"]
    only_run = {"properties": {"profile": {"const": "run"}}}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "dependentSchemas": {key: only_run for key in properties if key != "profile"}
        | ({"gpu": {"required": ["container_uri"], **only_run}} if "gpu" in properties else {}),
    }
    return json.dumps(document, indent=2) + "\n"


def settings(site: BatchSite) -> str:
    listed = {
        key: {"meaning": setting.meaning}
        | ({"default": setting.default} if setting.default else {})
        | ({} if setting.required or setting.default else {"optional": True})
        for key, setting in sorted(site.settings.items())
    }
    return json.dumps(listed, indent=2) + "\n"


def site_profile(name: str, site: BatchSite) -> str:
    document = {
        "name": name,
        "root": "<image-root>",
        "build_time_limit_s": "<build-limit-s>",  # the installer takes the quotes away
        **site.profile,
    }
    return json.dumps(document, indent=2) + "\n"


def readme(name: str, site: BatchSite) -> str:
    words = " ".join(
        f"--set {key}=…" for key, s in sorted(site.settings.items()) if s.required and not s.default
    )
    lines = [
        f"# {site.title[0].upper() + site.title[1:]}",
        "",
        "Made by `deploy_scripts/endpoints/generate.py`; how to install and what it means: `docs/endpoint.md`.",
        "",
        f"    bash deploy_scripts/install_endpoint.sh {name} --to FOLDER {words}",
        "",
        "What the files rest on:",
        "",
        *(f"- {line}" for line in site.documented),
        "",
        "What an administrator must check:",
        "",
        *(f"- {line}" for line in site.unsure),
    ]
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Every file that this program is responsible for, and what must stand in it."""
    made: dict[Path, str] = {}
    for name, site in SITES.items():
        folder = HERE / name
        title = {"TITLE": site.title[0].upper() + site.title[1:], "NAME": name}
        made[folder / "config.yaml"] = filled(text_of("config.yaml"), title)
        made[folder / "user_config_template.yaml.j2"] = template(name, site)
        made[folder / "user_config_schema.json"] = schema(name, site)
        made[folder / "user_environment.yaml"] = text_of("user_environment.yaml")
        made[folder / "settings.json"] = settings(site)
        made[folder / "site.json"] = site_profile(name, site)
        made[folder / "README.md"] = readme(name, site)
    return made


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="generate.py", description="Write the sites' endpoint files."
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a file is stale"
    )
    check = parser.parse_args(arguments).check
    stale = [
        path
        for path, text in files().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    for path in stale:
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files()[path], "utf-8")
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(HERE)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
