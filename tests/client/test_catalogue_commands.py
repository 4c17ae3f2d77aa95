"""``containers`` verbs at the wire: what is asked of the endpoint, what is printed, and the exit code."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import responses
from click.testing import CliRunner, Result

from cib_flows.bundle import function_names
from cib_flows.catalogue import Catalogue
from cib_flows.cli import main
from cib_flows.deployment_record import Deployment, RegisteredFunction, save_deployment
from cib_flows.errors import (
    AlreadyExistsError,
    CatalogueError,
    CibFlowsError,
    IllegalNameError,
    InUseError,
    NotFoundError,
    SourceNotFoundError,
)
from cib_flows.profiles import Globus

from .conftest import BUILD_ENDPOINT

COMPUTE = "https://compute.api.globus.org"
TASK = str(uuid.UUID(int=5))
FUNCTIONS = {name: str(uuid.UUID(int=100 + n)) for n, name in enumerate(function_names())}
NAMES = {identifier: name for name, identifier in FUNCTIONS.items()}
CONTAINER = {
    "ok": True,
    "container_id": str(uuid.UUID(int=9)),
    "name": "demo",
    "tag": "v1",
    "path": "/p",
    "bytes": 1,
    "trash": "/t",
    "verification_path": "/v",
}
Asked = list[tuple[str, dict[str, Any], str]]


@pytest.fixture
def endpoint(
    globus: Globus, cloud: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Asked]:
    """The endpoint gives this answer; what it was asked is ``(function, arguments, profile)``."""
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    functions = {name: RegisteredFunction(i, "") for name, i in FUNCTIONS.items()}
    save_deployment(globus, Deployment("f", "", BUILD_ENDPOINT, BUILD_ENDPOINT, functions))
    asked: Asked = []

    def answering(answer: dict[str, Any]) -> Asked:
        def accept(request: Any) -> tuple[int, dict[str, str], str]:
            body = json.loads(request.body)
            ((function_id, (packed,)),) = body["tasks"].items()
            arguments = json.loads(packed[packed.index("{") :])
            asked.append((NAMES[function_id], arguments, body["user_endpoint_config"]["profile"]))
            return 200, {}, json.dumps({"tasks": {function_id: [TASK]}})

        cloud.add_callback("POST", f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit", accept)
        cloud.get(f"{COMPUTE}/v2/tasks/{TASK}", json={"result": "11\n" + json.dumps(answer)})
        return asked

    return answering


def containers(*words: str) -> Result:
    return CliRunner().invoke(main, ["containers", *words])


@pytest.mark.parametrize(
    ("words", "function", "arguments", "profile"),
    [
        (
            ["tag", "demo", "v1"],
            "tag_container",
            {"action": "tag", "reference": "demo", "name_tag": "v1"},
            "control",
        ),
        (
            ["tag", "demo", "v1", "--move"],
            "tag_container",
            {"action": "move", "reference": "demo", "name_tag": "v1"},
            "control",
        ),
        (["untag", "demo:v1"], "tag_container", {"action": "untag", "reference": "demo:v1"}, "control"),
        (
            ["pin", "demo", "--why", "the paper"],
            "tag_container",
            {"action": "pin", "reference": "demo", "why": "the paper"},
            "control",
        ),
        (["unpin", "demo"], "tag_container", {"action": "unpin", "reference": "demo"}, "control"),
        (
            ["register", "/x.sif", "demo:v1", "--move", "--sha256", "ab"],
            "register_image",
            {
                "path": "/x.sif",
                "name_tag": "demo:v1",
                "endpoint_id": BUILD_ENDPOINT,
                "run_endpoint": BUILD_ENDPOINT,
                "sha256": "ab",
                "move": True,
            },
            "build",
        ),
        (["verify", "demo"], "verify_container", {"reference": "demo"}, "build"),
        (["remove", "demo", "--force"], "remove_container", {"reference": "demo", "force": True}, "control"),
        (
            ["gc", "--dry-run", "--max-size", "2G", "--max-age", "30d", "--keep-last", "3"],
            "collect_garbage",
            {
                "dry_run": True,
                "rules": {"max_bytes": 2 * 1024.0**3, "max_age_s": 30 * 86400.0, "keep_last": 3.0},
                "empty_trash": False,
            },
            "control",
        ),
        (["gc"], "collect_garbage", {"dry_run": False, "rules": {}, "empty_trash": False}, "control"),
        (["reindex"], "reindex_containers", {}, "control"),
        (["history", "demo"], "list_containers", {"history": "demo", "limit": 100}, "control"),
        (
            ["list", "--name", "d*", "--base", "cuda", "--package", "numpy", "--sort", "size"],
            "list_containers",
            {"limit": 50, "offset": 0, "name": "d*", "base": "cuda", "package": "numpy", "sort": "size"},
            "control",
        ),
    ],
)  # fmt: skip
def test_each_verb_asks_its_function_on_the_profile_that_can_do_it(
    endpoint: Callable[..., Asked],
    words: list[str],
    function: str,
    arguments: dict[str, Any],
    profile: str,
) -> None:
    asked = endpoint({**CONTAINER, "containers": [], "events": []})
    done = containers(*words, "--json")
    assert done.exit_code == 0, done.output
    ((called, given, where),) = asked
    assert (called, where) == (function, profile)
    assert {key: given.get(key) for key in arguments} == arguments
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("container_not_found", 1),
        ("source_not_found", 1),
        ("illegal_name", 2),
        ("already_exists", 1),
        ("in_use", 1),
        ("image_changed", 1),
    ],
)
def test_a_refusal_is_one_sentence_with_its_code(
    endpoint: Callable[..., Asked], code: str, exit_code: int
) -> None:
    endpoint({"ok": False, "error": {"code": code, "message": "It cannot be.", "hint": "Do this."}})
    done = containers("remove", "demo", "--json")
    assert done.exit_code == exit_code
    assert done.stderr == "Error: It cannot be.\nHint: Do this.\n"
    assert json.loads(done.stdout)["error"]["code"] == code


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("container_not_found", NotFoundError),
        ("source_not_found", SourceNotFoundError),
        ("illegal_name", IllegalNameError),
        ("already_exists", AlreadyExistsError),
        ("in_use", InUseError),
        ("image_changed", CatalogueError),
        ("not_trusted", CatalogueError),
    ],
)
def test_each_refusal_is_an_exception_of_its_own(
    endpoint: Callable[..., Asked], globus: Globus, code: str, kind: type[CibFlowsError]
) -> None:
    endpoint({"ok": False, "error": {"code": code, "message": "It cannot be.", "hint": "Do this."}})
    with pytest.raises(CibFlowsError) as refused:
        Catalogue(globus).register("/x.sif", "demo:v1")
    assert (type(refused.value), refused.value.code) == (kind, code)
    assert (refused.value.message, refused.value.hint) == ("It cannot be.", "Do this.")


def test_gc_prints_what_would_go_and_what_has_to_stay(endpoint: Callable[..., Asked]) -> None:
    nothing: dict[str, Any] = {"count": 0, "bytes": 0, "names": []}
    endpoint(
        {
            "ok": True,
            "images": {"count": 2, "bytes": 3 * 1024**3, "names": ["demo 1", "demo 2"]},
            **dict.fromkeys(("trash", "runs", "work", "incoming", "locks", "cache"), nothing),
            "total_bytes": 5 * 1024**3,
            "held": 7,
            "over_bytes": 1024**3,
            "report_path": "/root/gc.json",
        }
    )
    done = containers("gc", "--dry-run")
    assert "     2    3.0 GiB  images to the trash" in done.stdout.splitlines()
    assert "all images 5.0 GiB, 7 held" in done.stdout
    assert "would go: demo 1" in done.stderr
    assert "still 1.0 GiB more than allowed" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gc", "--max-size", "big"], "'big' is not a size such as 500G"),
        (["gc", "--max-size", "30d"], "'30d' is not a size"),
        (["gc", "--max-age", "30"], "'30' is not a time such as 30d"),
        (["gc", "--max-age", "-1d"], "'-1d' is not a time"),
        (["tag", "demo"], "Missing argument 'NAME:TAG'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_asked(words: list[str], said: str) -> None:
    done = containers(*words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_list_shows_every_name_and_what_is_amiss(endpoint: Callable[..., Asked]) -> None:
    row = {
        "container_id": "c1",
        "name": "demo",
        "tags": ["v1", "v2"],
        "other_names": ["third:v1"],
        "bytes": 2048,
        "created_at": "2026",
        "path": "/p",
        "sha256": "s",
    }
    rows = [row, {**row, "container_id": "c2", "tags": [], "image_is_missing": True}]
    endpoint({"ok": True, "containers": rows, "total": 2})
    done = containers("list")
    first, second = done.stdout.splitlines()
    assert first == "c1      2 KiB  2026  demo:v1 demo:v2 third:v1"
    assert second.endswith("(its image is missing)")


def test_a_history_reads_as_what_happened(endpoint: Callable[..., Asked]) -> None:
    event = {"at": "2026", "container_id": "c1", "account": "ann"}
    events = [
        {**event, "event": "verified", "ok": False, "code": "image_changed"},
        {**event, "event": "tagged", "tag": "v1"},
    ]
    endpoint({"ok": True, "events": events, "total": 2})
    assert containers("history", "demo").stdout.splitlines() == [
        "2026  c1  ann  verified and refused (image_changed)",
        "2026  c1  ann  tagged v1",
    ]
