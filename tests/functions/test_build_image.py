"""The build step around a stand-in for Apptainer: what it is asked, believed, and told about."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions.abort_build import abort_build
from cib_flows.functions.build_image import build_image
from cib_flows.functions.watch_build import watch_build
from tests.functions.conftest import Apptainer, Run, Server, Site

Start = Callable[..., Run]


@pytest.fixture(autouse=True)
def _own_tmpdir(site: Site, tmp_path: Path) -> None:
    site.set(tmpdir=str(tmp_path / "node"))


def scratch_of(tmp_path: Path) -> list[str]:
    place = tmp_path / "node"
    return sorted(os.listdir(place)) if place.exists() else []


def test_a_finished_image_that_can_be_read_is_believed(
    start: Start, apptainer: Apptainer, tmp_path: Path
) -> None:
    apptainer.control(image="SIF one", log="INFO: building\n")
    run = start()
    result = build_image(run.id, run.recipe_sha256)
    assert result["ok"] is True
    assert result["sif_sha256"] == hashlib.sha256(b"SIF one").hexdigest()
    assert result["sif_bytes"] == 7
    assert Path(result["sif_path"]).read_text() == "SIF one"
    assert Path(result["log_path"]).read_text() == "INFO: building\n"
    assert scratch_of(tmp_path) == []
    assert os.listdir(run.work) == ["image.sif"]


def test_the_engine_gets_a_list_of_arguments_and_a_private_environment(
    start: Start, apptainer: Apptainer, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("certificates")
    tools = tmp_path / "tools"
    tools.mkdir()
    run = start()
    site.set(
        ca_bundle=str(ca),
        tools=str(tools),
        pip_index_url="https://pypi.example.org/simple",
        proxies={"https": "http://proxy.example.org:3128"},
        mksquashfs_args="-comp zstd",
        environment={"SITE_MODULE": "loaded"},
    )
    monkeypatch.setenv("APPTAINER_BIND", "/opt/cray")
    monkeypatch.setenv("SINGULARITYENV_SECRET", "x")
    monkeypatch.setenv("CIB_FLOWS_CLIENT_SECRET", "x")
    monkeypatch.setenv("GLOBUS_COMPUTE_CLIENT_SECRET", "x")
    assert build_image(run.id, run.recipe_sha256)["ok"] is True
    asked = apptainer.asked
    words, environment = asked["argv"], asked["environment"]
    assert words[:2] == ["build", "--force"]
    assert words[-2:] == [str(run.work / "image.sif.new"), str(run.folder / "image.def")]
    assert words[words.index("--mksquashfs-args") + 1] == "-comp zstd"
    binds = [words[n + 1] for n, word in enumerate(words) if word == "--bind"]
    assert [bind.split(":", 1)[1] for bind in binds] == [
        "/mnt",
        "/tmp",
        "/var/tmp",
        "/mnt/tools:ro",
    ]
    assert not {"APPTAINER_BIND", "SINGULARITYENV_SECRET", "CIB_FLOWS_CLIENT_SECRET",
                "GLOBUS_COMPUTE_CLIENT_SECRET"} & environment.keys()  # fmt: skip
    node = str(tmp_path / "node")
    assert environment["APPTAINER_TMPDIR"].startswith(node)
    assert environment["APPTAINER_CACHEDIR"].startswith(str(site.root))
    assert environment["APPTAINERENV_PIP_INDEX_URL"] == "https://pypi.example.org/simple"
    assert environment["APPTAINERENV_SSL_CERT_FILE"] == "/mnt/ca.crt"
    assert environment["https_proxy"] == "http://proxy.example.org:3128"
    assert environment["SITE_MODULE"] == "loaded"


def test_the_registrys_password_reaches_the_engine_for_the_sites_registries_only(
    start: Start,
    apptainer: Apptainer,
    site: Site,
    other_web: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APPTAINER_DOCKER_USERNAME", "site")
    monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", "secret")
    own = start()
    build_image(own.id, own.recipe_sha256)
    assert apptainer.asked["environment"]["APPTAINER_DOCKER_PASSWORD"] == "secret"
    site.set(payload_hosts=[other_web.host])
    foreign = f"{other_web.host}/evil/image"
    for fields in (
        {"base": {"image": foreign}},
        {"spack": {"specs": ["zlib"], "builder": foreign}},
    ):
        evil = start(**fields)
        build_image(evil.id, evil.recipe_sha256)
        assert foreign in (evil.folder / "image.def").read_text()
        assert not any("DOCKER" in name for name in apptainer.asked["environment"])


@pytest.mark.parametrize("image", [None, "garbage"])
def test_success_without_a_readable_image_is_a_failure(
    start: Start, apptainer: Apptainer, image: str | None
) -> None:
    apptainer.control(log="Build complete\n", **({"image": image} if image else {}))
    run = start()
    result = build_image(run.id, run.recipe_sha256)
    assert result["error"]["code"] == "image_unreadable"
    assert "Build complete" in result["error"]["log_tail"]
    assert os.listdir(run.work) == []


def test_a_failed_build_tells_the_cause_the_log_and_its_end(
    start: Start, apptainer: Apptainer, tmp_path: Path
) -> None:
    apptainer.control(status=255, log="x\n" * 5000 + "E: Unable to locate package gti\nlast line\n")
    run = start()
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["code"] == "apt_package_not_found"
    assert "'gti'" in error["message"]
    assert error["log_path"] == str(run.folder / "build.log")
    assert error["log_tail"].endswith("last line\n")
    assert scratch_of(tmp_path) == []


def test_an_unknown_cause_is_not_guessed(start: Start, apptainer: Apptainer) -> None:
    apptainer.control(status=3, log="something odd\n")
    run = start()
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert (error["code"], error["message"]) == (
        "build_failed",
        "Apptainer could not build the image (exit status 3).",
    )


@pytest.mark.parametrize(
    ("written", "code", "message"),
    [
        ("command_failed\nThe command exited with status 2: make\n", "command_failed", "status 2: make"),
        ("python_too_old\nThe base image's Python 3.9 is too old.\n", "python_too_old", "Python 3.9"),
        ("internal\nnot a code that a recipe may use\n", "build_failed", "exit status 65"),
        ("", "build_failed", "exit status 65"),
        ("command_failed", "build_failed", "exit status 65"),
        ("command_failed\n" + "long " * 1000, "command_failed", "long ... long"),
    ],
)  # fmt: skip
def test_what_the_recipe_refused_is_told_in_its_words(
    start: Start, apptainer: Apptainer, written: str, code: str, message: str
) -> None:
    apptainer.control(status=65, files={"refusal": written})
    run = start()
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["code"] == code
    assert message.split(" ... ")[0] in error["message"]


def test_files_of_the_recipe_that_are_links_or_pipes_are_not_read(
    start: Start, apptainer: Apptainer, tmp_path: Path
) -> None:
    """A pipe would hold up the function beyond every limit, a link could show another's file."""
    secret = tmp_path / "secret"
    secret.write_text("command_failed\nsecret of the account\n")
    apptainer.control(status=65, pipes=["phase"], links={"refusal": str(secret)})
    run = start()
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["code"] == "build_failed"
    assert "secret" not in str(error)
    apptainer.control(status=65, folders=["phase", "refusal"])
    assert build_image(run.id, run.recipe_sha256)["error"]["code"] == "build_failed"


def test_what_a_build_prints_cannot_steer_the_readers_terminal(
    start: Start, apptainer: Apptainer
) -> None:
    apptainer.control(
        status=255,
        files={"refusal": "command_failed\n\x1b[2JThe command\x07 exited with status 1: \x9bx\n"},
        log="\x1b[31mred\x1b[0m text\r50%\r100%\n\x1b]0;title\x07é 漢\n",
    )
    run = start()
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["message"] == "The command exited with status 1: x"
    assert error["log_tail"] == "red text\n50%\n100%\n]0;titleé 漢\n"


def test_a_tree_deeper_than_python_goes_is_removed_and_stops_nobody(
    start: Start, apptainer: Apptainer, tmp_path: Path
) -> None:
    """Made below /tmp by a recipe's command, it would lie in the scratch folder and fail every later sweep."""
    apptainer.control(image="SIF one", deep=1500)
    run = start()
    assert build_image(run.id, run.recipe_sha256)["ok"] is True
    assert scratch_of(tmp_path) == []
    apptainer.control(image="SIF two")
    other = start(name="other")
    assert build_image(other.id, other.recipe_sha256)["ok"] is True


def test_a_build_over_its_time_is_stopped(
    start: Start, apptainer: Apptainer, site: Site, tmp_path: Path
) -> None:
    apptainer.control(hangs=True, log="working\n", pipes=["phase"])
    site.set(build_time_limit_s=0.5)
    run = start()
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert (error["code"], error["log_tail"]) == ("time_limit", "working\n")
    assert "0.5 seconds" in error["message"]
    assert scratch_of(tmp_path) == []


def test_an_abort_stops_a_build_under_way_and_removes_its_work(
    start: Start, apptainer: Apptainer, tmp_path: Path
) -> None:
    apptainer.control(hangs=True, files={"phase": "apt\n"}, log="working\n")
    run = start()
    results: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: results.append(build_image(run.id, run.recipe_sha256)), daemon=True
    )
    thread.start()
    tries = threading.Event()
    while watch_build(run.id)["phase"] != "apt":
        assert thread.is_alive()
        tries.wait(0.02)
    watched = watch_build(run.id)
    assert (watched["state"], watched["current_step"]) == ("running", "build_image")
    assert (watched["log"], watched["percent"]) == ("working\n", 20)
    assert abort_build(run.id)["aborted"] is True
    thread.join(60)
    assert results[0]["error"]["code"] == "aborted"
    assert not run.work.exists()
    assert scratch_of(tmp_path) == []
    assert watch_build(run.id)["state"] == "finished"


def test_a_recipe_changed_behind_its_back_is_not_built(start: Start, apptainer: Apptainer) -> None:
    run = start()
    with (run.folder / "image.def").open("a") as stream:
        stream.write("%setup\n    touch /tmp/x\n")
    assert build_image(run.id, run.recipe_sha256)["error"]["code"] == "recipe_changed"
    assert not (apptainer.folder / "asked.json").exists()


def test_without_an_engine_it_says_so(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = start()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_image(run.id, run.recipe_sha256)["error"]["code"] == "apptainer_missing"


def test_a_full_disk_is_told_as_such(
    start: Start, apptainer: Apptainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/node/cib-x")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["code"] == "disk_full"
    assert "/node/cib-x" in error["message"]


def test_places_of_the_site_are_those_of_the_build_node(
    start: Start, site: Site, apptainer: Apptainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    site.set(tmpdir="$NODE_DISK/tmp", cachedir="$NODE_DISK/cache")
    run = start()
    assert build_image(run.id, run.recipe_sha256)["ok"] is True
    environment = apptainer.asked["environment"]
    assert environment["APPTAINER_CACHEDIR"] == str(tmp_path / "disk" / "cache")
    assert environment["APPTAINER_TMPDIR"].startswith(str(tmp_path / "disk" / "tmp"))
    monkeypatch.delenv("NODE_DISK")
    run = start(name="other")
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["code"] == "site_invalid"
    assert "on this node it is $NODE_DISK/tmp" in error["message"]


def test_certificates_that_the_build_node_lacks_are_told(
    start: Start, site: Site, apptainer: Apptainer
) -> None:
    run = start()
    site.set(ca_bundle="/no/such/file.pem")
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["code"] == "site_invalid"
    assert "/no/such/file.pem cannot be read on the build node" in error["message"]


def test_an_unknown_run_is_told(site: Site, run_id: str) -> None:
    assert build_image(run_id, "0" * 64)["error"]["code"] == "run_not_found"
    assert build_image("../../etc", "0" * 64)["error"]["code"] == "run_not_found"
