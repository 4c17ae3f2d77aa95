"""The endpoint files of every site, rendered by the endpoint package's own program."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("globus_compute_endpoint")

from globus_compute_endpoint.endpoint.config.utils import load_config_yaml

from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.holds import holds, storage_time
from cib_flows.local.endpoint_files import install_endpoint
from cib_flows.local.home import Home

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL = REPOSITORY / "deploy_scripts" / "install_endpoint.sh"
ENDPOINTS = REPOSITORY / "deploy_scripts" / "endpoints"
GENERATE = ENDPOINTS / "generate.py"
BATCH_SITES = ("slurm", "delta", "polaris", "aurora")
FUNCTION = "01234567-89ab-cdef-0123-456789abcdef"
SETTINGS = {
    "slurm": {"interface": "lo"},
    "delta": {"account": "abcd-delta-cpu"},
    "polaris": {"account": "proj", "queue": "debug"},
    "aurora": {"account": "proj", "queue": "debug", "interface": "hsn0"},
}


def install(
    site: str, folder: Path, *options: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    given = {
        "environment": "/opt/endpoint",
        "image-root": "/shared/images",
        **SETTINGS[site],
        **settings,
    }
    words = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    return subprocess.run(
        ["bash", str(INSTALL), site, "--to", str(folder), *words, *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for site in BATCH_SITES:
        folders[site] = tmp_path_factory.mktemp(site) / "endpoint"
        done = install(site, folders[site], "--allow", FUNCTION)
        assert done.returncode == 0, done.stderr
    return folders


def render(folder: Path, options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """``globus-compute-endpoint render-user-config``, which also checks the options against the schema."""
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "globus-compute-endpoint"),
            "render-user-config",
            "-t", str(folder / "user_config_template.yaml.j2"),
            "-s", str(folder / "user_config_schema.json"),
            "-o", "-",
        ],
        input=json.dumps(options),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def config(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    done = render(folder, options)
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace("> Rendered user config:", "")
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def test_the_files_are_what_the_generator_makes() -> None:
    done = subprocess.run(
        [sys.executable, str(GENERATE), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("site", BATCH_SITES)
def test_control_runs_on_the_login_node_and_takes_only_text_and_json(
    site: str, installed: dict[str, Path]
) -> None:
    control = config(installed[site], {"profile": "control"})
    assert control["engine"]["type"] == "ProcessPoolEngine"
    assert control["engine"]["max_workers"] > 1
    assert control["allowed_functions"] == [FUNCTION]
    assert len(control["engine"]["allowed_serializers"]) == 2


def here(
    site: str,
    installed: dict[str, Path],
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    **profile: Any,
) -> Path:
    """A copy of a site's endpoint files for images below ``root``, on this machine."""
    folder = tmp_path / "endpoint"
    if site == "local":
        folder.mkdir()
        home = Home(tmp_path)
        install_endpoint(home, {"root": str(root)})
        assert home.endpoint_dir == folder
    else:
        shutil.copytree(installed[site], folder)
        schema = folder / "user_config_schema.json"
        schema.write_text(schema.read_text().replace("/shared/images", str(root)))
        template = folder / "user_config_template.yaml.j2"
        text = template.read_text().replace("/opt/endpoint", sys.prefix)
        template.write_text(text.replace(str(installed[site]), str(folder)))
    site_file = folder / "site.json"
    site_file.write_text(json.dumps({"name": site, "root": str(root), **profile}))
    monkeypatch.setenv("CIB_FLOWS_SITE", str(site_file))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return folder


def started(script: str) -> subprocess.CompletedProcess[str]:
    """What a job does before its worker starts."""
    return subprocess.run(
        ["bash", "-c", f"module() {{ :; }}\n{script}\necho up"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("site", [*BATCH_SITES, "local"])
def test_no_worker_starts_in_an_image_that_would_never_answer_or_is_not_allowed(
    site: str, installed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "images-of-demo"
    image = root / "images" / "demo" / f"{'a' * 64}.sif"
    image.parent.mkdir(parents=True)
    image.write_text("SIF")
    record = image.with_suffix(".json")
    about = {"name": "demo", "sha256": "a" * 64, "base": {"image": "python:3.11"}}
    versions = {name: metadata.version(name) for name in ("parsl", "globus-compute-endpoint")}
    folder = here(site, installed, tmp_path, root, monkeypatch)
    record.write_text(json.dumps({**about, "worker": versions}))
    script = config(folder, {"container_uri": str(image)})["engine"]["provider"]["worker_init"]
    fit = started(script)
    assert (fit.stdout, fit.stderr) == ("up\n", "")
    old = {**versions, "parsl": "2026.9.7"}
    # an image that was not meant for workers, or came from elsewhere: what is in it was found by its proof
    for more in ({"worker": old}, {"worker": {}, "verification": {"packages": old}}):
        record.write_text(json.dumps({**about, **more}))
        refused = started(script)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("cib-flows: The image demo holds parsl 2026.9.7, and this")
        assert len(refused.stderr.splitlines()) == 1
    site_file = folder / "site.json"
    site_file.write_text(json.dumps({"root": str(root), "allowed_bases": ["ubuntu:*"]}))
    record.write_text(json.dumps({**about, "worker": versions}))
    refused = started(script)
    assert "python:3.11, is not one that this site allows" in refused.stderr
    # nor in a file that nobody registered
    plain = image.with_name("plain.sif")
    plain.write_text("SIF")
    assert "is not a registered container" in started(script.replace(str(image), str(plain))).stderr


@pytest.mark.parametrize("site", [*BATCH_SITES, "local"])
def test_a_job_in_an_image_leases_it_for_as_long_as_it_lives(
    site: str, installed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "images-of-demo"
    key = f"demo@{'a' * 64}"
    image = root / "images" / "demo" / f"{'a' * 64}.sif"
    image.parent.mkdir(parents=True)
    image.write_text("SIF")
    Path(image.with_suffix(".json")).write_text("{}")
    folder = here(site, installed, tmp_path, root, monkeypatch)
    provider = config(folder, {"container_uri": str(image)})["engine"]["provider"]
    script = f"module() {{ :; }}\nsleep() {{ command sleep 0.05; }}\n{provider['worker_init']}"
    job = subprocess.Popen(
        ["bash", "-c", f"{script}\necho up; read word"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdin is not None
    assert job.stdout is not None
    assert job.stdout.readline() == "up\n"
    catalogue = Catalogue(str(root))
    try:
        held = wait_for(lambda: holds(catalogue, storage_time(str(root))).get(key))
        assert held == [("lease", f"workers on {platform.node()}")]
    finally:
        job.communicate("\n", timeout=60)
    assert job.returncode == 0
    wait_for(lambda: not holds(catalogue, storage_time(str(root))))
    # its age counts from now on
    assert (root / "uses" / key).exists()


def test_a_job_in_an_image_of_no_catalogue_runs_without_a_lease(
    installed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    endpoint = here("local", installed, tmp_path, place, monkeypatch)
    uri = str(place / "plain.sif")
    provider = config(endpoint, {"container_uri": uri})["engine"]["provider"]
    done = subprocess.run(
        ["bash", "-euc", provider["worker_init"]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(place.iterdir()) == []


def wait_for(answer: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (found := answer()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("site", BATCH_SITES)
def test_builds_are_batch_jobs_of_one_worker_that_know_their_end(
    site: str, installed: dict[str, Path]
) -> None:
    build = config(installed[site], {"profile": "build"})
    engine = build["engine"]
    assert engine["type"] == "GlobusComputeEngine"
    assert engine["max_workers_per_node"] == 1
    assert "container_type" not in engine
    assert "max_retries_on_system_failure" not in engine
    assert build["allowed_functions"] == [FUNCTION]
    provider = engine["provider"]
    assert provider["type"] in ("SlurmProvider", "PBSProProvider")
    ended = subprocess.run(
        [
            "bash",
            "-c",
            f"module() {{ :; }}\n{provider['worker_init']}\necho $CIB_JOB_END_S; date +%s",
        ],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    end, now = map(int, ended.stdout.split())
    assert 0 <= now + 6 * 3600 - end <= 5
    # a block takes no task that it could not finish
    profile = json.loads((installed[site] / "site.json").read_text())
    assert engine["drain_period"] + profile["build_time_limit_s"] < 6 * 3600


@pytest.mark.parametrize("site", BATCH_SITES)
def test_run_needs_nothing_but_the_image(site: str, installed: dict[str, Path]) -> None:
    image = "/shared/images/images/demo/0a.sif"
    run = config(installed[site], {"container_uri": image})
    engine = run["engine"]
    assert engine["container_type"] == "custom"
    words = engine["container_cmd_options"].split()
    assert words[:2] == ["apptainer", "exec"]
    assert words[-2:] == [image, "{EXECUTOR_LAUNCH_CMD}"]
    assert "allowed_functions" not in run
    assert "allowed_serializers" not in engine
    assert "container_type" not in config(installed[site], {})["engine"]


@pytest.mark.parametrize("site", ["slurm", "delta", "polaris"])
def test_gpu_chooses_the_flag_that_binds_the_driver(site: str, installed: dict[str, Path]) -> None:
    image = {"container_uri": "/shared/images/a.sif"}
    flags = {
        gpu: config(installed[site], {**image, "gpu": gpu})["engine"]["container_cmd_options"]
        for gpu in ("nvidia", "amd")
    }
    assert " --nv " in flags["nvidia"]
    assert " --rocm " in flags["amd"]


def test_a_user_may_charge_another_account_and_ask_for_more_time(
    installed: dict[str, Path],
) -> None:
    options = {
        "account": "mine",
        "partition": "gpu",
        "walltime": "02:30:00",
        "blocks": 3,
        "cores": 8,
    }
    provider = config(installed["slurm"], options)["engine"]["provider"]
    assert (provider["account"], provider["partition"]) == ("mine", "gpu")
    assert (provider["walltime"], provider["max_blocks"]) == ("02:30:00", 3)
    assert provider["cores_per_node"] == 8
    # JSON knows one kind of number
    same = config(installed["slurm"], {"blocks": 3.0, "cores": 8.0})["engine"]["provider"]
    assert (repr(same["max_blocks"]), repr(same["cores_per_node"])) == ("3", "8")
    plain = config(installed["slurm"], {})["engine"]["provider"]
    assert plain["cores_per_node"] is None
    assert (plain["account"], plain["partition"]) == (None, None)


IN_A_NAME = [
    # what a shell, YAML or Jinja reads
    "$(id)", "`id`", "${IFS}", "a;b", "a|b", "a&b", "a>b", "a<b", "a*b", "a?b", "a[b]", "a{b}", "a!b", "a'b", 'a"b',
    "a\\b", "a#b", "a:b", "a,b", "a=b", "a%0ab", "{{ 7*7 }}", "{% raw %}", "{# #}", "a b", "~",
    # what ends a line, or cannot be seen
    "a\tb", "a\rb", "a\nb", "a\x0bb", "a\x00b", "a\x1b[0mb", "a\x85b", "a\u2028b", "a\u2029b", "a\u00a0b", "a\u200bb",
    "a\u202eb", "a\ufeffb", "\uff0e\uff0e/a", "\u0430", "\u00e9",
    # other places
    "..", "../a", "a/../b", "a//b", "./a", ".a", "-a", "a" * 1024, "a/" * 600,
]  # fmt: skip
HOSTILE = [
    *({"container_uri": f"/shared/images/{name}.sif"} for name in IN_A_NAME),
    *({"account": name} for name in IN_A_NAME),
    *({"container_uri": value} for value in (None, True, 1.5, [], {}, ["/shared/images/a.sif"])),
    {"container_uri": "/shared/images/a.sif --bind /etc"},
    {"container_uri": "/shared/images/a.SIF"},
    {"container_uri": "/shared/images/a"},
    {"container_uri": "/shared/images/"},
    {"container_uri": "/shared/images.sif"},
    {"container_uri": " /shared/images/a.sif"},
    {"container_uri": "file:///shared/images/a.sif"},
    {"container_uri": "library://shared/images/a.sif"},
    {"container_uri": "~/a.sif"},
    {"container_type": "docker"},
    {"engine": {"type": "ThreadPoolEngine"}},
    {"provider": {"type": "LocalProvider"}},
    {"_GC": {"parent_config": {}}},
    {"PROFILE": "build"},
    {"profile": ["run"]},
    {"profile": None},
    {"walltime": "00:00:00"},
    {"blocks": True},
    {"blocks": 1.5},
    {"container_uri": "/shared/images/a.sif; touch /tmp/x; :"},
    {"container_uri": "/shared/images/$(id).sif"},
    {"container_uri": "/shared/images/../../etc/a.sif"},
    {"container_uri": "/shared/images//a.sif"},
    {"container_uri": "/shared/images/a b.sif"},
    {"container_uri": "/shared/images/a.sif\n"},
    {"container_uri": "/shared/images/a.sif\nx.sif"},
    {"container_uri": "/other/a.sif"},
    {"container_uri": "/shared/imagesX/a.sif"},
    {"container_uri": "docker://somebody/image"},
    {"container_uri": "/shared/images/-a.sif"},
    {"container_uri": 7},
    {"account": "x --wrap=evil"},
    {"account": "x\n#SBATCH --wrap=evil"},
    {"account": "x\n"},
    {"account": "-x"},
    {"walltime": "1-00:00:00"},
    {"walltime": "01:00:00\n"},
    {"walltime": "01:00:00; id"},
    {"blocks": 1000},
    {"blocks": "2"},
    {"cores": 0},
    {"cores": "4"},
    {"profile": "build", "cores": 4},
    {"gpu": "nvidia --bind /etc"},
    {"gpu": "nvidia"},
    {"profile": "root"},
    {"worker_init": "touch /tmp/x"},
    {"endpoint_setup": "touch /tmp/x"},
    {"container_cmd_options": "--bind /"},
    {"scheduler_options": "#SBATCH --uid=0"},
    {"profile": "build", "container_uri": "/shared/images/a.sif"},
    {"profile": "build", "walltime": "00:01:00"},
    {"profile": "control", "account": "x"},
]


@pytest.mark.parametrize("site", [*BATCH_SITES, "local"])
def test_hostile_options_are_refused(site: str, installed: dict[str, Path], tmp_path: Path) -> None:
    """Checked with the package's own validation, in this process: a program for each would take minutes."""
    import jsonschema
    from globus_compute_endpoint.endpoint.config.utils import _validate_user_opts

    folder = installed[site] if site in installed else tmp_path / "endpoint"
    if site == "local":
        folder.mkdir()
        install_endpoint(Home(tmp_path), {"root": "/shared/images"})
    schema = json.loads((folder / "user_config_schema.json").read_text())
    _validate_user_opts({"container_uri": "/shared/images/images/a/0.sif"}, schema)
    accepted = []
    for options in [*HOSTILE, {"queue" if site in ("slurm", "delta") else "partition": "x"}]:
        try:
            _validate_user_opts(options, schema)
        except (jsonschema.ValidationError, ValueError):
            continue
        accepted.append(options)
    assert accepted == []
    assert render(folder, {"container_uri": "/shared/images/a.sif; id"}).returncode != 0


# Parsl leaves the socket open that it asks for an interface's address.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("site", BATCH_SITES)
def test_the_engine_package_accepts_what_is_rendered(site: str, installed: dict[str, Path]) -> None:
    folder = installed[site]
    load_config_yaml((folder / "config.yaml").read_text())
    # 'build' and 'run' resolve the site's network interface, which this machine does not have
    text = render(folder, {"profile": "build"}).stdout.replace("> Rendered user config:", "")
    for name in ('"hsn0"', '"<interface>"'):
        text = text.replace(name, '"lo"')
    engine = load_config_yaml(text).engine
    assert type(engine).__name__ == "GlobusComputeEngine"
    assert engine.executor.drain_period > 0


@pytest.mark.parametrize("site", BATCH_SITES)
def test_what_stands_ready_for_many_accounts_is_valid(
    site: str, installed: dict[str, Path]
) -> None:
    text = (installed[site] / "config.yaml").read_text()
    (installed[site] / "identity_mapping.json").write_text(
        json.dumps(
            [
                {
                    "DATA_TYPE": "expression_identity_mapping#1.0.0",
                    "mappings": [
                        {"source": "{username}", "match": "(.*)@example\\.org", "output": "{0}"}
                    ],
                }
            ]
        )
    )
    active = []
    for line in text.splitlines():
        setting = line.removeprefix("# ")
        is_setting = setting.split(":")[0].strip().isidentifier() and ":" in setting
        active.append(setting if is_setting else line)
    config = load_config_yaml("\n".join(active))
    assert config.pam.enable is True
    assert str(config.identity_mapping_config_path).startswith(str(installed[site]))


@pytest.mark.parametrize("site", BATCH_SITES)
def test_the_site_profile_is_one_that_the_functions_take(
    site: str, installed: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cib_flows.functions._shared.site import load_site

    monkeypatch.setenv("CIB_FLOWS_SITE", str(installed[site] / "site.json"))
    profile = load_site()
    assert profile["name"] == site
    assert profile["root"] == "/shared/images"
    environment = yaml.safe_load((installed[site] / "user_environment.yaml").read_text())
    assert environment["CIB_FLOWS_SITE"] == str(installed[site] / "site.json")


def test_no_placeholder_is_left(installed: dict[str, Path]) -> None:
    for site, folder in installed.items():
        known = json.loads((GENERATE.parent / site / "settings.json").read_text())
        for path in folder.iterdir():
            text = path.read_text()
            left = [
                key for key in (*known, "endpoint-dir", "allowed-functions") if f"<{key}" in text
            ]
            assert left == [], path


def test_a_root_may_hold_the_users_name(tmp_path: Path) -> None:
    done = install("slurm", tmp_path / "e", **{"image-root": "/scratch/$USER/images"})
    assert done.returncode == 0, done.stderr
    assert render(tmp_path / "e", {"container_uri": "/scratch/bob/images/a.sif"}).returncode == 0
    for stranger in ("/scratch/bob/evil/images/a.sif", "/scratch/images/a.sif"):
        assert render(tmp_path / "e", {"container_uri": stranger}).returncode != 0


def test_installing_again_changes_nothing_and_leaves_edits_alone(tmp_path: Path) -> None:
    folder = tmp_path / "endpoint"
    assert "would write" in install("slurm", folder, "--dry-run").stdout
    assert not folder.exists()
    install("slurm", folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name[0] != "."}
    (folder / "site.json").write_text('{"name": "mine", "root": "/x"}')
    del before[folder / "site.json"]
    again = install("slurm", folder)
    assert f"left alone, edited since: {folder / 'site.json'}" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((folder / "site.json").read_text())["name"] == "mine"
    install("slurm", folder, "--replace")
    assert json.loads((folder / "site.json").read_text())["name"] == "slurm"


def test_the_list_that_deploy_writes_is_taken_without_what_runs_strangers_code(
    tmp_path: Path,
) -> None:
    listed = tmp_path / "allowed_functions.yaml"
    other = FUNCTION.replace("0", "1")
    listed.write_text(
        f"allowed_functions:\n  - {FUNCTION}  # build_image, of x\n  - {other}  # run_in_container, of x\n"
    )
    folder = tmp_path / "endpoint"
    done = install("slurm", folder, "--allow-file", str(listed))
    assert done.returncode == 0, done.stderr
    assert config(folder, {"profile": "build"})["allowed_functions"] == [FUNCTION]
    missing = install("slurm", folder, "--allow-file", str(tmp_path / "nothing"))
    assert missing.returncode == 1
    assert "No such file" in missing.stderr


def test_another_endpoints_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("display_name: mine\n")
    done = install("slurm", tmp_path)
    assert done.returncode == 2
    assert "did not write (config.yaml)" in done.stderr
    assert (tmp_path / "config.yaml").read_text() == "display_name: mine\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image-root": "/a/../b"}, "'image-root' cannot be '/a/../b'"),
        ({"image-root": "/a'; id"}, "'image-root' cannot be"),
        ({"environment": "~/venv"}, "'environment' cannot be"),
        ({"account": "a\nb"}, "'account' cannot be"),
        ({"colour": "red"}, "slurm has no setting 'colour'; it has account,"),
        (
            {"build-walltime": "01:00:00"},
            "must be at least 120 seconds longer than 'build-limit-s'",
        ),
    ],
)
def test_what_cannot_be_installed_is_refused_in_one_sentence(
    settings: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = install("slurm", tmp_path / "e", **settings)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "e").exists()


def test_a_missing_setting_is_named_with_its_meaning(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(INSTALL), "aurora", "--to", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "is missing" in done.stderr


def test_a_local_home_leaves_an_installed_site_alone(tmp_path: Path) -> None:
    """So that the local Globus can run the files of a batch site."""
    home = Home(tmp_path / "home")
    install("slurm", home.endpoint_dir)
    before = {path.name: path.read_text() for path in home.endpoint_dir.iterdir()}
    edited = install_endpoint(home, {"root": "/elsewhere"})
    assert "user_config_schema.json" in {path.name for path in edited}
    assert {name: (home.endpoint_dir / name).read_text() for name in before} == before
