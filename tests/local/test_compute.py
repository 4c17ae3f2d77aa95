"""The Compute service, through the unmodified ``globus_sdk`` clients, on real process pools."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import globus_sdk
import pytest
from globus_sdk import AccessTokenAuthorizer
from globus_sdk.testing import get_response_set

from cib_flows.local import control
from cib_flows.local.identities import Identities

from .conftest import JSON_DATA, LocalGlobus, pack, until, value

ECHO = "def echo(*args, **kwargs):\n    return [list(args), kwargs]\n"
FAIL = "def fail():\n    raise ValueError('this is why')\n"
DIE = "def die():\n    import os\n    os._exit(3)\n"


def refused(call: Callable[[], Any]) -> globus_sdk.GlobusAPIError:
    with pytest.raises(globus_sdk.GlobusAPIError) as refusal:
        call()
    return refusal.value


def fixture_keys(method: str) -> set[str]:
    """The keys of the SDK's own example of an answer."""
    document = get_response_set(f"compute.{method}").lookup("default").json
    assert isinstance(document, dict)
    return set(document)


# -- functions -----------------------------------------------------------------------------------


def test_a_function_is_kept_as_it_was_registered(local_globus: LocalGlobus) -> None:
    body = {
        "function_name": "echo",
        "function_code": ECHO,
        "serialized": False,
        "description": "says it again",
        "meta": {"python_version": "3.11.2", "sdk_version": "4.19.0"},
    }
    function_id = local_globus.compute_v3.register_function(body)["function_uuid"]
    found = local_globus.compute_v2.get_function(function_id).data
    assert isinstance(found, dict)
    assert set(found) == fixture_keys("v2.get_function")
    assert found["function_code"].endswith(f"st\necho:{ECHO}")
    assert found["description"] == "says it again"
    assert found["metadata"] == body["meta"]


def test_registering_the_same_text_again_makes_another_function(local_globus: LocalGlobus) -> None:
    assert local_globus.register(ECHO) != local_globus.register(ECHO)


def test_a_deleted_function_is_gone(local_globus: LocalGlobus) -> None:
    function_id = local_globus.register(ECHO)
    local_globus.compute_v2.delete_function(function_id)
    for call in (
        lambda: local_globus.compute_v2.get_function(function_id),
        lambda: local_globus.submit(function_id),
    ):
        refusal = refused(call)
        assert (refusal.http_status, refusal.code) == (404, "FUNCTION_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"function_code": "x"}, "function_name"),
        ({"function_name": "", "function_code": "x"}, "function_name"),
        ({"function_name": "x"}, "function_code"),
        ({"function_name": "x", "function_code": 3}, "function_code"),
    ],
)
def test_an_incomplete_registration_names_the_field(
    local_globus: LocalGlobus, body: dict[str, Any], field: str
) -> None:
    refusal = refused(lambda: local_globus.compute_v3.register_function(body))
    assert refusal.http_status == 422
    assert field in refusal.message  # type: ignore[operator]


# -- tasks ---------------------------------------------------------------------------------------


def test_a_task_returns_what_its_function_returned(local_globus: LocalGlobus) -> None:
    document = local_globus.call(ECHO, 1, "zwei", None)
    assert value(document) == [[1, "zwei", None], {}]
    assert set(document) == fixture_keys("v2.get_task")
    steps = document["details"]["task_transitions"]
    assert steps["execution-end"] >= steps["execution-start"]


def test_a_failing_function_leaves_its_traceback(local_globus: LocalGlobus) -> None:
    document = local_globus.call(FAIL)
    assert document["status"] == "failed"
    assert "ValueError: this is why" in document["exception"]
    assert "result" not in document


def test_what_a_function_prints_disturbs_nobody(local_globus: LocalGlobus) -> None:
    source = (
        "def noise():\n"
        "    import os, sys\n"
        "    print('x' * 100_000, flush=True)\n"
        "    os.write(1, b'raw')\n"
        "    return 'quiet'\n"
    )
    assert value(local_globus.call(source)) == "quiet"


def test_a_function_sees_its_site_and_no_secret(local_globus: LocalGlobus) -> None:
    source = "def look():\n    import os\n    return dict(os.environ)\n"
    seen = value(local_globus.call(source))
    assert seen["CIB_FLOWS_SITE"] == str(local_globus.home.site_path)
    client = local_globus.home.client()
    assert client.client_secret not in json.dumps(seen)
    assert not [name for name in seen if name.startswith(("GLOBUS_", "APPTAINER", "PYTHONPATH"))]


def test_a_function_may_import_what_the_endpoint_left_out(local_globus: LocalGlobus) -> None:
    pytest.importorskip("rfc3987_syntax")
    source = "def name():\n    import rfc3987_syntax\n    return rfc3987_syntax.__name__\n"
    assert value(local_globus.call(source)) == "rfc3987_syntax"


def test_several_functions_in_one_submission(local_globus: LocalGlobus) -> None:
    echo, fail = local_globus.register(ECHO), local_globus.register(FAIL)
    answer = local_globus.compute_v3.submit(
        local_globus.endpoint_id,
        {
            "tasks": {echo: [pack([1], {}), pack([2], {})], fail: [pack([], {})]},
            "user_endpoint_config": {"profile": "control"},
            "result_serializers": [JSON_DATA],
        },
    ).data
    assert isinstance(answer, dict)
    assert set(answer) == fixture_keys("v3.submit")
    assert [value(local_globus.finished(name))[0][0] for name in answer["tasks"][echo]] == [1, 2]
    assert local_globus.finished(answer["tasks"][fail][0])["status"] == "failed"
    group = local_globus.compute_v2.get_task_group(answer["task_group_id"]).data
    assert isinstance(group, dict)
    assert set(group) == fixture_keys("v2.get_task_group")
    assert [task["id"] for task in group["tasks"]] == answer["tasks"][echo] + answer["tasks"][fail]
    every = local_globus.compute_v2.get_task_batch([task["id"] for task in group["tasks"]])
    assert sorted(found["status"] for found in every["results"].values()) == [
        "failed",
        "success",
        "success",
    ]


def test_the_version_two_submission(local_globus: LocalGlobus) -> None:
    function_id = local_globus.register(ECHO)
    answer = local_globus.compute_v2.submit(
        {
            "tasks": [[function_id, local_globus.endpoint_id, pack(["old"], {})]],
            "user_endpoint_config": {"profile": "control"},
            "result_serializers": [JSON_DATA],
        }
    )
    document = local_globus.finished(answer["results"][0]["task_uuid"])
    assert value(document)[0] == ["old"]


def test_a_larger_submission_than_the_service_takes_is_refused(local_globus: LocalGlobus) -> None:
    function_id = local_globus.register(ECHO)
    text = "x" * (10 * 1024 * 1024)
    refusal = refused(lambda: local_globus.submit(function_id, text))
    assert (refusal.http_status, refusal.code) == (413, "PAYLOAD_TOO_LARGE")


def test_unknown_ids_are_answered_as_the_service_answers(local_globus: LocalGlobus) -> None:
    nobody = str(uuid.uuid4())
    function_id = local_globus.register(ECHO)
    v2, v3 = local_globus.compute_v2, local_globus.compute_v3
    tasks = {"tasks": {function_id: [pack([], {})]}}
    for call, code in (
        (lambda: v3.submit(nobody, tasks), "ENDPOINT_NOT_FOUND"),
        (lambda: v2.get_endpoint_status(nobody), "ENDPOINT_NOT_FOUND"),
        (lambda: v2.get_task(nobody), "TASK_NOT_FOUND"),
        (lambda: v2.get_task_group(nobody), "TASK_GROUP_NOT_FOUND"),
    ):
        refusal = refused(call)
        assert (refusal.http_status, refusal.code) == (404, code)


def test_the_endpoint_describes_itself(local_globus: LocalGlobus) -> None:
    v2, v3, name = local_globus.compute_v2, local_globus.compute_v3, local_globus.endpoint_id
    assert v2.get_endpoint_status(name)["status"] == "online"
    assert v2.get_endpoints()[0]["uuid"] == name
    document = v2.get_endpoint(name)
    assert "profile" in document["user_config_schema"]["properties"]
    assert "ProcessPoolEngine" in document["user_config_template"]
    assert v3.get_endpoint_allowlist(name)["restricted"] is False


# -- engines -------------------------------------------------------------------------------------


def test_no_profile_runs_functions_in_threads_of_the_endpoint(local_globus: LocalGlobus) -> None:
    source = "def pid():\n    import os\n    return [os.getpid(), os.getppid()]\n"
    own, parent = value(local_globus.call(source))
    assert own != parent
    template = (local_globus.home.endpoint_dir / "user_config_template.yaml.j2").read_text()
    assert "ThreadPool" not in template


def test_each_profile_has_an_engine_of_its_own(local_globus: LocalGlobus) -> None:
    source = "def parent():\n    import os\n    return os.getppid()\n"
    parents = {
        profile: value(local_globus.call(source, user_endpoint_config={"profile": profile}))
        for profile in ("control", "build")
    }
    assert parents["control"] != parents["build"]


def test_a_dead_worker_is_told_and_replaced(local_globus: LocalGlobus) -> None:
    config = {"user_endpoint_config": {"profile": "build"}}
    document = local_globus.call(DIE, **config)
    assert document["status"] == "failed"
    assert "terminated abruptly" in document["exception"]
    assert value(local_globus.call(ECHO, "alive", **config))[0] == ["alive"]


def test_a_killed_user_endpoint_is_told_and_replaced(local_globus: LocalGlobus) -> None:
    source = (
        "def end_all():\n"
        "    import os, signal, time\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(600)\n"
    )
    config = {"user_endpoint_config": {"profile": "build"}}
    document = local_globus.call(source, **config)
    assert document["status"] == "failed"
    assert document["exception"].startswith("The user endpoint process ended while this task")
    assert "endpoint.log" in document["exception"]
    assert value(local_globus.call(ECHO, "alive", **config))[0] == ["alive"]


def test_an_idle_engine_ends_and_comes_back(own_globus: Callable[..., LocalGlobus]) -> None:
    globus = own_globus()
    template = globus.home.endpoint_dir / "user_config_template.yaml.j2"
    # The shortest that the endpoint package lets one set: one heartbeat of five seconds.
    short = template.read_text().replace("heartbeat_period: 30", "heartbeat_period: 5")
    template.write_text(short.replace("idle_heartbeats_soft: 20", "idle_heartbeats_soft: 1"))
    source = "def parent():\n    import os\n    return os.getppid()\n"
    first = value(globus.call(source))
    until(lambda: not os.path.exists(f"/proc/{first}"))
    assert value(globus.call(source)) != first


def test_pickled_code_is_not_loaded_by_the_build_profiles(local_globus: LocalGlobus) -> None:
    body = {"function_name": "f", "function_code": "9\n01\ngASVBA"}
    function_id = local_globus.compute_v3.register_function(body)["function_uuid"]
    document = local_globus.finished(local_globus.submit(function_id)[0])
    assert document["status"] == "failed"
    assert "DillCode disabled by current configuration" in document["exception"]


def test_an_allow_list_beside_the_template_is_obeyed(
    own_globus: Callable[..., LocalGlobus],
) -> None:
    globus = own_globus()
    allowed, other = globus.register(ECHO), globus.register(ECHO)
    listing = globus.home.endpoint_dir / "allowed_functions.yaml"
    listing.write_text(f"allowed_functions: [{allowed}]\n")
    assert globus.finished(globus.submit(allowed)[0])["status"] == "success"
    document = globus.finished(globus.submit(other)[0])
    assert document["exception"] == (
        f"Function {other} not permitted on endpoint {globus.endpoint_id}"
    )


def test_an_edited_template_is_left_alone_by_the_next_start(
    own_globus: Callable[..., LocalGlobus],
) -> None:
    globus = own_globus()
    template = globus.home.endpoint_dir / "user_config_template.yaml.j2"
    config = globus.home.endpoint_dir / "config.yaml"
    template.write_text("engine:\n  type: NoSuchEngine\n")
    config.unlink()
    control.stop(globus.home)
    again = own_globus()
    assert template.read_text().startswith("engine:")
    assert config.exists(), "what was not edited comes back"
    refusal = refused(lambda: again.submit(again.register(ECHO)))
    assert refusal.http_status == 422
    assert "NoSuchEngine" in refusal.message  # type: ignore[operator]


# -- configurations that the schema refuses ------------------------------------------------------

HOSTILE_URIS = [
    "{root}/a.sif; touch pwned; :.sif",
    "{root}/a.sif\n",
    "{root}/a.sif\ntouch /tmp/x.sif",
    "{root}/$(id).sif",
    "{root}/`id`.sif",
    "{root}/a b.sif",
    "{root}/a'b.sif",
    '{root}/a".sif',
    "{root}/a\\.sif",
    "{root}/a|b.sif",
    "{root}/a&b.sif",
    "{root}/a>b.sif",
    "{root}/*.sif",
    "{root}/../secret.sif",
    "{root}/x/../../secret.sif",
    "{root}//a.sif",
    "{root}/-a.sif",
    "{root}/a.img",
    "{root}/a.sif.",
    "{root}/{{ 7*7 }}.sif",
    "{root}/å.sif",
    "{root}evil/a.sif",
    "/etc/a.sif",
    "docker://alpine.sif",
    "a.sif",
    "",
    "--writable {root}/a.sif",
    3,
    None,
    ["{root}/a.sif"],
]


@pytest.mark.parametrize("uri", HOSTILE_URIS, ids=repr)
def test_a_hostile_container_uri_is_refused(local_globus: LocalGlobus, uri: Any) -> None:
    root = local_globus.home.site()["root"]
    if isinstance(uri, str):
        uri = uri.replace("{root}", root)
    function_id = local_globus.register(ECHO)
    refusal = refused(
        lambda: local_globus.submit(function_id, user_endpoint_config={"container_uri": uri})
    )
    assert (refusal.http_status, refusal.code) == (422, "SEMANTICALLY_INVALID")
    assert "container_uri" in refusal.message  # type: ignore[operator]


@pytest.mark.parametrize(
    "config",
    [
        {"profile": "root"},
        {"profile": "control", "container_uri": "{root}/a.sif"},
        {"worker_init": "touch pwned"},
        {"requirements": "pandas"},
        {"endpoint_setup": "touch pwned"},
        {"_GC": {}},
        {"parent_config": {}},
    ],
    ids=repr,
)
def test_what_the_schema_does_not_name_is_refused(
    local_globus: LocalGlobus, config: dict[str, Any]
) -> None:
    root = local_globus.home.site()["root"]
    config = {
        name: text.replace("{root}", root) if isinstance(text, str) else text
        for name, text in config.items()
    }
    function_id = local_globus.register(ECHO)
    refusal = refused(lambda: local_globus.submit(function_id, user_endpoint_config=config))
    assert (refusal.http_status, refusal.code) == (422, "SEMANTICALLY_INVALID")


def test_the_schema_follows_the_sites_root(own_globus: Callable[..., LocalGlobus]) -> None:
    globus = own_globus()
    elsewhere = globus.home.path / "other.root+1"
    schema = (globus.home.endpoint_dir / "user_config_schema.json").read_text()
    control.stop(globus.home)
    again = own_globus(site={"root": str(elsewhere)})
    assert (again.home.endpoint_dir / "user_config_schema.json").read_text() != schema
    function_id = again.register(ECHO)
    for wrong in (f"{globus.home.path}/containers/a.sif", f"{globus.home.path}/otherXroot+1/a.sif"):
        refusal = refused(
            lambda uri=wrong: again.submit(function_id, user_endpoint_config={"container_uri": uri})  # type: ignore[misc]
        )
        assert refusal.http_status == 422


# -- several identities ---------------------------------------------------------------------------


def test_tasks_and_functions_are_their_owners(local_globus: LocalGlobus) -> None:
    alice = Identities.of_home(local_globus.home).add("alice@example.org")
    hers_v2 = globus_sdk.ComputeClientV2(authorizer=AccessTokenAuthorizer(alice.token))
    hers_v3 = globus_sdk.ComputeClientV3(authorizer=AccessTokenAuthorizer(alice.token))
    function_id = local_globus.register(ECHO)
    (task_id,) = local_globus.submit(function_id, "mine")
    local_globus.finished(task_id)
    group = {
        "tasks": {function_id: [pack(["hers"], {})]},
        "user_endpoint_config": {"profile": "control"},
    }
    answer = hers_v3.submit(local_globus.endpoint_id, group)
    (her_task,) = answer["tasks"][function_id]
    for ask in (
        lambda: hers_v2.get_task(task_id),
        lambda: hers_v2.get_task_batch([task_id]),
        lambda: hers_v2.delete_function(function_id),
        lambda: local_globus.compute_v2.get_task(her_task),
        lambda: local_globus.compute_v2.get_task_group(answer["task_group_id"]),
        lambda: local_globus.compute_v3.submit(
            local_globus.endpoint_id, {**group, "task_group_id": answer["task_group_id"]}
        ),
    ):
        assert refused(ask).http_status == 403
    assert hers_v2.get_task_group(answer["task_group_id"])["tasks"][0]["id"] == her_task
