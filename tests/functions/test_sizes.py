# ruff: noqa: E501 - tables read best with one row on one line
"""The largest legal inputs: every result stays small, and a flow's document far below its limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cib_flows.functions._shared.results import (
    ERROR_CODES,
    MAX_RESULT_BYTES,
    StepFailed,
    last_bytes,
    run_step,
    shorten,
)
from cib_flows.functions._shared.spec_check import MAX_SPEC_BYTES
from cib_flows.functions.build_image import build_image
from cib_flows.functions.fetch_payload import fetch_payload
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.register_container import register_container
from cib_flows.functions.render_recipe import render_recipe
from cib_flows.functions.report_failure import report_failure
from cib_flows.functions.verify_image import verify_image
from cib_flows.functions.watch_build import watch_build
from tests.functions.conftest import Apptainer, Server, Site

FLOW_LIMIT = 200_000
ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"
LOUD = "😀" * 4000 + "\n"


def largest(url: str) -> dict[str, Any]:
    """Every field at or near its own limit, and the whole at the limit of a spec."""
    spec: dict[str, Any] = {
        "name": "n" * 64,
        "tag": "t" * 64,
        "description": "ü" * 500,
        "base": {"bootstrap": "docker", "image": "library/" + "b" * 380 + ":" + "t" * 120},
        "worker": "none",
        "payload": {"url": url + "/" + "p" * 1900, "destination": "/d" + "d" * 500},
        "pip": ["p" * 250 + f"{n}" for n in range(10)],
        "environment": {f"V{n}": "é" * 100 for n in range(10)},
        "mounts": ["/m" + "m" * 500],
        "verify": {"imports": ["i" * 250 + f"{n}" for n in range(10)]},
        "commands": [],
    }
    room = MAX_SPEC_BYTES - len(json.dumps(spec)) - 600
    spec["commands"] = ["c" * (room // 3)] * 3
    assert MAX_SPEC_BYTES - 2000 < len(json.dumps(spec)) <= MAX_SPEC_BYTES
    return spec


class Document:
    """The flow's document as its definition builds it: an action's output stands under ``result`` and ``results``."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.fields: dict[str, Any] = {
            "settings": {"functions": {str(n): ENDPOINT for n in range(6)}, "x": "y" * 500},
            "build_endpoint": ENDPOINT,
            "spec": spec,
        }

    def store(self, state: str, output: dict[str, Any]) -> dict[str, Any]:
        assert len(json.dumps(output)) <= MAX_RESULT_BYTES
        self.fields[state] = {
            "action_id": "tg_" + ENDPOINT,
            "status": "SUCCEEDED",
            "state_name": state,
            "details": {"result": [output], "results": [{"task_id": ENDPOINT, "output": output}]},
        }
        return output

    def fail(self, run_id: str, caught: Any = None) -> None:
        steps = {"render_recipe": "RenderRecipe", "fetch_payload": "FetchPayload", "build_image": "BuildImage",
                 "verify_image": "VerifyImage", "register_container": "RegisterContainer"}  # fmt: skip
        failure = {
            "caught": caught,
            "transfer": None,
            "outputs": [
                {
                    "step": step,
                    "output": self.fields.get(state, {})
                    .get("details", {})
                    .get("result", [None])[0],
                }
                for step, state in steps.items()
            ],
        }
        self.fields["failure"] = failure
        self.store("ReportFailure", report_failure(run_id, **failure))
        assert self.fields["ReportFailure"]["details"]["result"][0]["sentence"]

    @property
    def size(self) -> int:
        return len(json.dumps(self.fields))


@pytest.fixture
def big(site: Site, registry: Server, web: Server, apptainer: Apptainer) -> dict[str, Any]:
    web.answer = lambda *_: (200, {}, b"payload")
    probe = {
        "python": "3.11.2",
        "executable": "/usr/bin/python3",
        "packages": {f"package-{n}": "1.0" for n in range(600)},
        "missing": [],
        "imported": ["i" * 250 + f"{n}" for n in range(10)],
        "failed": {},
        "encoding": "utf-8",
        "conflicts": [],
        "pip": [],
        "conda": [],
    }
    answers = [{"to": "python3", "output": json.dumps(probe)}]
    apptainer.control(image="SIF", log=LOUD * 5, answers=answers)
    return largest(web.url)


def test_a_success_with_the_largest_spec_stays_far_below_the_limit(
    big: dict[str, Any], run_id: str
) -> None:
    document = Document(big)
    rendered = document.store("RenderRecipe", render_recipe(big, run_id))
    document.store("FetchPayload", fetch_payload(run_id, rendered["recipe_sha256"]))
    built = document.store("BuildImage", build_image(run_id, rendered["recipe_sha256"]))
    proved = document.store("VerifyImage", verify_image(run_id, built["sif_sha256"]))
    done = document.store(
        "RegisterContainer",
        register_container(run_id, ENDPOINT, proved["sif_sha256"], proved["verification_sha256"]),
    )
    assert done["ok"] is True
    document.fields["container"] = done
    assert document.size < FLOW_LIMIT / 2
    for result in (
        watch_build(run_id),
        list_containers(),
        list_containers(done["container_id"]),
    ):
        assert result["ok"] is True
        assert len(json.dumps(result)) <= MAX_RESULT_BYTES


Breaker = Callable[[dict[str, Any], Apptainer, Server, Server], None]
BREAK: dict[str, Breaker] = {
    "RenderRecipe": lambda _, __, registry, ___: setattr(registry, "answer", lambda *_: (404, {}, b"")),
    "FetchPayload": lambda _, __, ___, web: setattr(web, "answer", lambda *_: (404, {}, b"")),
    "BuildImage": lambda _, shim, __, ___: shim.control(status=1, log=LOUD * 50 + "E: Unable to locate package " + LOUD),
    "VerifyImage": lambda _, shim, __, ___: shim.control(image="SIF", answers=[{"to": "/bin/sh", "errors": "FATAL: " + LOUD}]),
    "RegisterContainer": lambda *_: None,
}  # fmt: skip


@pytest.mark.parametrize("broken", list(BREAK))
def test_a_failure_at_any_step_stays_below_the_limit_too(
    big: dict[str, Any],
    run_id: str,
    site: Site,
    apptainer: Apptainer,
    registry: Server,
    web: Server,
    broken: str,
) -> None:
    BREAK[broken](big, apptainer, registry, web)
    document = Document(big)
    rendered = document.store("RenderRecipe", render_recipe(big, run_id))
    sha256 = rendered.get("recipe_sha256", "")
    steps: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("FetchPayload", lambda: fetch_payload(run_id, sha256)),
        ("BuildImage", lambda: build_image(run_id, sha256)),
        ("VerifyImage", lambda: verify_image(run_id, document.fields["BuildImage"]["details"]["result"][0]["sif_sha256"])),
        ("RegisterContainer", lambda: register_container(run_id, ENDPOINT, "0" * 64, "0" * 64)),
    ]  # fmt: skip
    ended = "RenderRecipe" if not rendered["ok"] else ""
    for state, step in steps:
        if ended:
            break
        if not document.store(state, step())["ok"]:
            ended = state
    assert ended == broken
    document.fail(run_id, caught=None)
    assert document.size < FLOW_LIMIT / 2
    assert not (site.root / "work" / run_id).exists()


def test_an_exception_that_the_flow_caught_whole_fits_too(big: dict[str, Any], run_id: str) -> None:
    """A worker's traceback may be long; Compute hands over at most some kilobytes of it."""
    document = Document(big)
    document.fields["caught"] = {"Error": "ActionFailedException", "Cause": "x" * 20_000}
    document.fail(run_id, caught=document.fields["caught"])
    assert document.size < FLOW_LIMIT


def test_a_full_page_of_the_longest_rows_fits(site: Site) -> None:
    for number in range(12):
        folder = site.root / "images" / ("n" * 64)
        folder.mkdir(parents=True, exist_ok=True)
        sha256 = f"{number:064d}"
        record = {
            "container_id": ENDPOINT, "name": "n" * 64, "path": "/" + "p" * 1000, "sha256": sha256,
            "bytes": 10**12, "created_at": f"2026-01-01T00:00:{number:02d}+00:00",
        }  # fmt: skip
        (folder / f"{sha256}.json").write_text(json.dumps(record))
        for tag in range(6):
            place = site.root / "tags" / ("n" * 64)
            place.mkdir(parents=True, exist_ok=True)
            pointer = {"sha256": sha256, "name": "n" * 64}
            (place / f"{'t' * 60}{number}{tag}.json").write_text(json.dumps(pointer))
    seen = 0
    while seen < 12:
        result = list_containers(limit=12, offset=seen)
        assert result["total"] == 12
        assert result["containers"]
        seen += len(result["containers"])


def test_a_failure_of_the_longest_words_fits_its_result() -> None:
    for text in ("x" * 10_000, "😀" * 10_000, "\x00" * 10_000, '"\\' * 5000):
        failure = StepFailed("build_failed", text, text, "/" + "p" * 1000, text)

        def fail(raised: StepFailed = failure) -> dict[str, Any]:
            raise raised

        result = run_step("build_image", fail)
        assert result["ok"] is False
        assert len(json.dumps(result)) <= MAX_RESULT_BYTES


def test_a_result_that_is_too_large_is_a_bug_and_not_passed_on() -> None:
    with pytest.raises(ValueError, match="at most 8192 are allowed"):
        run_step("x", lambda: {"text": "x" * 9000})


def test_only_codes_of_the_list_can_be_raised() -> None:
    with pytest.raises(ValueError, match="unknown error code"):
        StepFailed("oops", "x")
    assert all(code.replace("_", "").isalpha() for code in ERROR_CODES)


def test_bugs_pass_through() -> None:
    def bug() -> dict[str, Any]:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_step("x", bug)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [("a b\n c", 10, "a b c"), ("abcdefghij", 7, "ab...ij"), ("", 5, ""), ("x" * 10, 10, "x" * 10)],
)
def test_shorten_keeps_both_ends(text: str, limit: int, expected: str) -> None:
    assert shorten(text, limit) == expected


def test_a_tail_begins_with_a_whole_line() -> None:
    assert last_bytes("first\nsecond\nthird\n", 16) == "third\n"
    assert last_bytes("short\n", 100) == "short\n"
    assert len(json.dumps(last_bytes("é" * 1000, 200))) <= 200
