"""From a payload that asks for packages, or a machine that the spec names, to what the engine is given."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cib_flows.functions._shared.payload_asks import lend_asked, payload_asks
from cib_flows.functions._shared.recipe import environment_only, render_text
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.spec_check import check_spec
from cib_flows.functions._shared.stages import ground_of, requirements_in
from cib_flows.functions.build_image import build_image
from cib_flows.functions.fetch_payload import fetch_payload
from cib_flows.functions.render_recipe import render_recipe
from cib_flows.functions.verify_image import verify_image
from tests.functions.conftest import BASE_DIGEST, Apptainer, Run, Server
from tests.functions.corpus import with_
from tests.functions.deffile import parse_stages

Start = Callable[..., Run]


def archive(files: dict[str, str]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as made:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            made.addfile(entry, io.BytesIO(text.encode()))
    return raw.getvalue()


@pytest.fixture
def fetch(start: Start, web: Server) -> Callable[..., tuple[Run, dict[str, Any]]]:
    """Render a spec whose payload is installed, and fetch a payload of the given files."""

    def fetched(files: dict[str, str], **fields: Any) -> tuple[Run, dict[str, Any]]:
        web.answer = lambda *_: (200, {}, archive(files))
        run = start(payload={"url": f"{web.url}/x.tar.gz", "install": True}, **fields)
        return run, fetch_payload(run.id, run.recipe_sha256)

    return fetched


def test_the_recipe_does_not_depend_on_what_the_payload_holds(fetch: Any) -> None:
    one, fetched_one = fetch({"requirements.txt": "numpy\n"})
    two, fetched_two = fetch({"requirements.txt": "pandas\n", "apt.txt": "git\n"})
    assert fetched_one["build_digest"] != fetched_two["build_digest"]
    text = (one.folder / "image.def").read_text()
    assert text == (two.folder / "image.def").read_text()
    assert "numpy" not in text


def test_a_payload_that_asks_for_too_much_is_refused_before_a_build_is_queued(fetch: Any) -> None:
    _, result = fetch({"requirements.txt": "ok\n--find-links /etc\n"})
    assert result["error"]["code"] == "payload_refused"
    assert "'requirements.txt, line 2'" in result["error"]["message"]


def test_the_build_is_lent_what_was_read(fetch: Any, apptainer: Apptainer) -> None:
    run, fetched = fetch({"requirements.txt": "numpy\n", "apt.txt": "git make\n", "start": ""})
    assert fetched["ok"] is True
    answer = {"to": "no-such-program"}
    apptainer.control(image="SIF", answers=[answer])
    lent: dict[str, str] = {}
    shim = Path(apptainer.folder / "apptainer")
    text = shim.read_text().replace(
        "    sys.stderr.buffer.write(control",
        "    json.dump({name: open(os.path.join(exchange, 'asked', name)).read() for name in"
        " os.listdir(os.path.join(exchange, 'asked'))}, open(here + '/lent.json', 'w'))\n"
        "    sys.stderr.buffer.write(control",
        1,
    )
    shim.write_text(text)
    built = build_image(run.id, run.recipe_sha256)
    assert built["ok"] is True, built
    lent = json.loads((apptainer.folder / "lent.json").read_text())
    assert lent == {"apt": "git\nmake\n", "pip": "numpy\n", "start": "start\n"}


def test_what_the_payload_asked_for_must_be_in_the_image(fetch: Any, apptainer: Apptainer) -> None:
    run, _ = fetch({"requirements.txt": "no-such-distribution-of-ours\n"})
    apptainer.control(image="SIF")
    built = build_image(run.id, run.recipe_sha256)
    result = verify_image(run.id, built["sif_sha256"])
    assert result["error"]["code"] == "verify_package_missing"
    assert "no-such-distribution-of-ours" in result["error"]["message"]


def plan(**fields: Any) -> dict[str, Any]:
    return {
        "base": {"digest": BASE_DIGEST},
        "engine": "x",
        "machine": "x86_64",
        "worker": {},
        **fields,
    }


def test_an_environment_is_kept_for_what_was_asked_not_for_the_payloads_own_content() -> None:
    spec = check_spec(
        with_(pip=["rich"], worker="none", payload={"url": "https://a.org/x", "install": True})
    )
    asked = {"apt": ["git"], "pip": ["numpy"]}
    ground = ground_of(spec, plan(asked=asked, payload_digest="1"))
    assert ground == ground_of(spec, plan(asked={**asked, "pip": []}, payload_digest="2"))
    assert ground != ground_of(spec, plan(asked={**asked, "apt": ["git", "make"]}))
    assert ground != ground_of(spec, plan(asked={**asked, "conda": ["samtools"]}))
    assert ground != ground_of(spec, plan(asked=asked, machine="x86_64; microarchitecture zen3"))
    assert requirements_in(spec, plan(asked=asked)) == ["numpy", "rich"]


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": {"A": "b"}},
        {"files": [{"path": "/x"}]},
        {"runscript": ["true"]},
        {"payload": {"url": "https://a.org/x", "install": True}},
    ],
)
def test_a_kept_environment_has_nothing_that_another_image_must_not_have(
    fields: dict[str, Any],
) -> None:
    spec = check_spec(with_(worker="none", pip=["numpy"], **fields))
    bare = check_spec(with_(worker="none", pip=["numpy"]))
    kept = environment_only(spec)
    assert environment_only(kept) == kept
    if "payload" in fields:
        assert "phase payload" not in render_text(kept, {})
        assert "/mnt/asked/pip" in render_text(kept, {})
    else:
        assert render_text(kept, {}) == render_text(bare, {})


def test_both_images_of_a_spack_recipe_are_pinned(start: Start, registry: Server) -> None:
    run = start(spack={"specs": ["zlib"]})
    builder, final = parse_stages((run.folder / "image.def").read_text())
    assert builder.header["from"].endswith(f"spack/ubuntu-jammy@{BASE_DIGEST}")
    assert final.header["from"].endswith(f"library/debian@{BASE_DIGEST}")


def test_a_recipe_that_goes_on_from_a_stage_compiles_nothing_again() -> None:
    spec = check_spec(with_(worker="none", spack={"specs": ["zlib"]}))
    (stage,) = parse_stages(render_text(spec, {}, "/cache/stage.sif", goes_on=True))
    assert "files" not in stage.sections
    assert "/opt/view/bin" in stage.sections["environment"]


def test_the_machine_is_part_of_an_images_identity(start: Start) -> None:
    plain = start().rendered["build_digest"]
    zen = start(machine={"microarchitecture": "zen3"})
    assert zen.rendered["build_digest"] != plain
    kept = json.loads((zen.folder / "plan.json").read_text())
    assert kept["machine"].endswith("; microarchitecture zen3")
    gpu = start(machine={"microarchitecture": "zen3", "gpu": {"kind": "cuda", "version": "12.4"}})
    assert gpu.rendered["build_digest"] not in (plain, zen.rendered["build_digest"])


def test_an_image_for_another_platform_is_refused_where_it_would_be_built(
    start: Start, apptainer: Apptainer
) -> None:
    run = start(machine={"platform": "linux/riscv64"})
    apptainer.control(image="SIF")
    result = build_image(run.id, run.recipe_sha256)
    assert result["error"]["code"] == "machine_mismatch"
    assert "nothing is built across platforms" in result["error"]["message"]


def test_whole_files_in_a_spec_are_the_lists_they_stand_for(site: Any, registry: Server) -> None:
    plain = {"name": "demo", "base": {"image": "debian:12-slim"}, "worker": "none"}
    lists = {"pip": ["numpy", "pandas>=2"], "conda": ["samtools"], "conda_channels": ["bioconda"]}
    text = {
        "pip": ["numpy"],
        "pip_requirements": "pandas>=2\n",
        "conda_environment": "channels: [bioconda]\ndependencies: [samtools]\n",
    }
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2)]
    one, two = (
        render_recipe({**plain, **fields}, run_id)
        for fields, run_id in zip((lists, text), ids, strict=True)
    )
    assert one["spec_digest"] == two["spec_digest"]
    assert one["build_digest"] == two["build_digest"]


PIECES = ["numpy", "-r x", "-e .", "--hash=1", "$(id)", "`id`", ";", "\\", "#", "'", '"', "- ", "pip:", "{{ x }}",
          "%setup", "dependencies:", "channels:", "\n", "\n- ", " ", "\t", "\x00", "\u2028", ">=1", "git"]  # fmt: skip
lines = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join)
NAMES = ["apt.txt", "requirements.txt", "environment.yml", "x", "binder/apt.txt", "pyproject.toml"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow,
          HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.dictionaries(st.sampled_from(NAMES), lines, max_size=4))
def test_whatever_a_payload_holds_what_is_lent_is_plain_words(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    """No word that the recipe's shell reads unquoted can hold anything but a package's own characters."""
    root = tmp_path_factory.mktemp("payload")
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        asked, refusal = payload_asks(str(root)), None
    except StepFailed as refused:
        asked, refusal = {}, refused
    if refusal is not None:
        assert refusal.code == "payload_refused"
        assert refusal.message.isprintable()
        return
    lend_asked(asked, str(root / "lent"))
    for name in ("apt", "channels", "conda", "indexes", "pip"):
        lent = root / "lent" / name
        written = lent.read_text().split("\n")[:-1] if lent.exists() else []
        assert written == asked[name]
        assert all(word.isprintable() and not word.startswith(("-", "%")) for word in written)
    assert not set("".join(asked["apt"])) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.:=~-"
    )
