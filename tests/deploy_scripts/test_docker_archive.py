from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def docker_archive(load_helper: Callable[[str], ModuleType]) -> ModuleType:
    return load_helper("docker_archive")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    hello = tmp_path / "hello"
    hello.write_text("hello")
    path = tmp_path / "rootfs.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(hello, "etc/hello")
    return path


def test_archive_describes_its_one_layer(
    docker_archive: ModuleType, rootfs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "image.tar"

    code = docker_archive.main([str(rootfs), str(output), "python:3.11-slim", "python3"])

    assert code == 0
    with tarfile.open(output) as archive:

        def content(name: str) -> bytes:
            stream = archive.extractfile(name)
            assert stream is not None
            return stream.read()

        (manifest,) = json.loads(content("manifest.json"))
        config = json.loads(content(manifest["Config"]))
        (layer,) = manifest["Layers"]
        assert manifest["RepoTags"] == ["python:3.11-slim"]
        assert content(layer) == rootfs.read_bytes()
    layer_sha256 = hashlib.sha256(rootfs.read_bytes()).hexdigest()
    assert config["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{layer_sha256}"]}
    assert config["config"]["Cmd"] == ["python3"]
    assert config["os"] == "linux"


def test_missing_root_file_system_is_one_sentence_and_leaves_nothing(
    docker_archive: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "image.tar"

    code = docker_archive.main([str(tmp_path / "none.tar"), str(output), "python:3", "python3"])

    assert code == 1
    assert "none.tar" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_reference_without_a_tag_is_refused(
    docker_archive: ModuleType, rootfs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = docker_archive.main([str(rootfs), str(tmp_path / "image.tar"), "python", "python3"])

    assert code == 2
    assert "NAME:TAG" in capsys.readouterr().err
