"""A deployment that is planned, compared, refused half-way, or restricted to some people."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import responses
from click.testing import CliRunner

from cib_flows import allow_list, deployment_state
from cib_flows.bundle import bundle_function, function_names
from cib_flows.cli import main
from cib_flows.deployment import Choices, deploy, ensure_deployed, find_drift, plan_deployment
from cib_flows.deployment_plan import differences
from cib_flows.deployment_record import leftovers_path, load_deployment
from cib_flows.errors import ServiceError, UsageError
from cib_flows.profiles import Globus
from cib_flows.starting import start_once

from .conftest import BUILD_ENDPOINT

FLOWS = "https://flows.automate.globus.org"
COMPUTE = "https://compute.api.globus.org"
TRANSFER = "https://transfer.api.globus.org"
FLOW_ID = "24bc4997-b483-4c25-a19c-64b0afc00743"
COLLECTION = "a7c5a6a1-5f0c-4d07-9e61-3f0dbd5f9c11"
URN = "urn:globus:auth:identity:24bc4997-b483-4c25-a19c-64b0afc00743"
GONE = {"error": {"code": "NOT_FOUND", "detail": "gone", "message": "gone"}}


class Service:
    """Globus Flows and Compute as far as a deployment goes: they remember, and fail when told to."""

    def __init__(self, cloud: responses.RequestsMock) -> None:
        self.functions: dict[str, dict[str, Any]] = {}
        self.flow: dict[str, Any] | None = None
        self.calls: list[str] = []
        self.fails: dict[str, int | Callable[[], int]] = {}
        for method, url, name, answer in (
            ("POST", f"{COMPUTE}/v3/functions", "register", self._register),
            ("GET", re.compile(f"{COMPUTE}/v2/functions/.*"), "look up", self._function),
            ("DELETE", re.compile(f"{COMPUTE}/v2/functions/.*"), "unregister", self._unregister),
            ("POST", f"{FLOWS}/flows", "create", self._create),
            ("GET", f"{FLOWS}/flows/{FLOW_ID}", "get", self._get),
            ("PUT", f"{FLOWS}/flows/{FLOW_ID}", "update", self._update),
            ("DELETE", f"{FLOWS}/flows/{FLOW_ID}", "delete", self._delete),
        ):
            cloud.add_callback(method, url, self._answering(name, answer))

    def _answering(self, name: str, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def called(request: Any) -> tuple[int, dict[str, str], str]:
            self.calls.append(name)
            failure = self.fails.get(name)
            status = failure() if callable(failure) else failure
            if status:
                return status, {}, json.dumps({"error": {"code": "OOPS", "detail": "it failed"}})
            body = answer(request)
            return (200, {}, json.dumps(body)) if body is not None else (404, {}, json.dumps(GONE))

        return called

    def _register(self, request: Any) -> Any:
        identifier = f"00000000-0000-4000-8000-{len(self.calls):012d}"
        self.functions[identifier] = json.loads(request.body)
        return {"function_uuid": identifier}

    def _function(self, request: Any) -> Any:
        identifier = request.url.rpartition("/")[2]
        return {"function_uuid": identifier} if identifier in self.functions else None

    def _unregister(self, request: Any) -> Any:
        return {"result": 302} if self.functions.pop(request.url.rpartition("/")[2], None) else None

    def _create(self, request: Any) -> Any:
        self.flow = {"id": FLOW_ID, "user_role": "flow_owner", **json.loads(request.body)}
        return self.flow

    def _get(self, request: Any) -> Any:
        return self.flow

    def _update(self, request: Any) -> Any:
        assert self.flow is not None
        self.flow.update(json.loads(request.body))
        return self.flow

    def _delete(self, request: Any) -> Any:
        gone, self.flow = self.flow, None
        return gone


@pytest.fixture
def service(cloud: responses.RequestsMock, globus: Globus) -> Service:
    return Service(cloud)


def change_text(monkeypatch: pytest.MonkeyPatch, *names: str, mark: str = "0") -> None:
    """As if a release had changed these functions."""

    def changed(asked: str) -> Any:
        bundle = bundle_function(asked)
        if asked not in names:
            return bundle
        return replace(bundle, source=f"{bundle.source}# {mark}\n", sha256=mark * 64)

    monkeypatch.setattr(deployment_state, "bundle_function", changed)


def state(globus: Globus, service: Service) -> Any:
    """What a deployment may change."""
    record = globus.record_path.read_text() if globus.record_path.exists() else None
    return copy.deepcopy((service.functions, service.flow, record))


# -- the plan -----------------------------------------------------------------------------------


def test_a_plan_of_a_first_deployment_names_everything_and_does_nothing(
    globus: Globus, service: Service
) -> None:
    lines = list(plan_deployment(globus).lines())
    assert len(lines) == len(function_names()) + 1
    assert lines[-1] == "create the flow Build a container with cib-flows"
    assert service.calls == []
    assert not globus.record_path.exists()


def test_a_plan_of_a_change_says_what_was_and_what_will_be(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = deploy(globus)
    change_text(monkeypatch, "build_image")
    before = state(globus, service)
    plan = plan_deployment(globus, Choices(roles={"flow_starters": [URN]}))
    text = "\n".join(plan.lines())
    old = first.functions["build_image"]
    assert f"register build_image: its text changed from {old.sha256[:12]} to 000000000000" in text
    assert f"keep {len(first.functions) - 1} functions as they are" in text
    assert f"update the flow {FLOW_ID}" in text
    assert (
        "definition.States.Settings.Parameters.functions.build_image: "
        f"{old.id} -> (new) build_image" in text
    )
    assert "flow_starters: [] ->" in text
    assert state(globus, service) == before


def test_a_plan_without_changes_says_so_and_the_command_prints_it(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(globus)
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    done = CliRunner().invoke(main, ["deploy", "--dry-run"])
    assert (done.exit_code, done.stdout) == (0, "nothing would change\n")
    plan = json.loads(CliRunner().invoke(main, ["deploy", "--dry-run", "--json"]).stdout)["plan"]
    assert plan["changes_nothing"] is True
    assert plan["flow"] == {"action": "keep", "id": FLOW_ID, "changes": []}


def test_differences_of_two_documents_are_told_by_their_place() -> None:
    old = {"a": {"b": [1, {"c": "x"}]}, "gone": 1, "list": [1]}
    new = {"a": {"b": [1, {"c": "y"}]}, "list": [1, 2], "more": {"z": 1}}
    assert list(differences(old, new, "doc")) == [
        "doc.a.b[1].c: x -> y",
        "doc.gone: 1 -> (gone)",
        "doc.list: [1] -> [1, 2]",
        'doc.more: (not there) -> {"z": 1}',
    ]
    assert list(differences(old, copy.deepcopy(old), "doc")) == []


# -- drift --------------------------------------------------------------------------------------


def check(monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    done = CliRunner().invoke(main, ["deploy", "--check"])
    return done.exit_code, done.stdout


def test_what_is_as_it_was_deployed_has_not_drifted(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_drift(globus) == ["nothing is deployed, or its record is not here"]
    deploy(globus, choices=Choices(roles={"flow_viewers": ["public"]}))
    assert find_drift(globus) == []
    assert check(monkeypatch)[0] == 0


def test_a_flow_that_somebody_changed_is_noticed_and_mended_by_a_deployment(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(globus)
    assert service.flow is not None
    service.flow["definition"]["States"]["BuildImage"]["WaitTime"] = 5
    code, said = check(monkeypatch)
    assert code == 1
    assert "changed on the service since" in said
    assert "definition.States.BuildImage.WaitTime: 5 -> 172800" in said
    deploy(globus)
    assert find_drift(globus) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.flow.update(flow_starters=["public"]), "flow_starters are ['public'] on the"),
        (lambda s: s.flow.update(title="Mine"), "title: Mine -> Build a container"),
        (lambda s: setattr(s, "flow", None), f"the flow {FLOW_ID} is gone"),
        (lambda s: s.functions.pop(next(iter(s.functions))), "abort_build"),
    ],
)
def test_other_drift_is_named(
    globus: Globus, service: Service, spoil: Callable[[Service], object], said: str
) -> None:
    deploy(globus)
    spoil(service)
    assert said in "\n".join(find_drift(globus))


def test_newer_files_are_named_with_both_sums(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(globus)
    change_text(monkeypatch, "verify_image")
    (line,) = find_drift(globus)
    assert line.startswith("the function verify_image is 000000000000 in the files and ")


# -- half-way -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", ["update", "register"])
def test_a_refusal_half_way_leaves_everything_as_it_was(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    deploy(globus)
    before = state(globus, service)
    change_text(monkeypatch, "build_image", "watch_build")
    done = {"register": 0}

    def second_registration() -> int:
        done["register"] += 1
        return 403 if done["register"] == 2 else 0

    service.fails[fails] = 403 if fails == "update" else second_registration
    with pytest.raises(ServiceError) as failure:
        deploy(globus)
    assert "Nothing was changed" in str(failure.value.hint)
    assert state(globus, service) == before
    service.fails.clear()
    assert set(deploy(globus).functions) == set(function_names())
    assert find_drift(globus) == []


def test_functions_that_cannot_be_deleted_again_are_noted_and_used_next_time(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(globus)
    change_text(monkeypatch, "build_image")
    service.fails.update(update=403, unregister=500)
    with pytest.raises(ServiceError, match="Could not update") as failure:
        deploy(globus)
    assert "build_image" in str(failure.value.hint)
    noted = json.loads(leftovers_path(globus).read_text())
    assert set(noted) == {"build_image"}
    service.fails.clear()
    registered = service.calls.count("register")
    assert deploy(globus).functions["build_image"].id == noted["build_image"]["id"]
    assert service.calls.count("register") == registered
    assert not leftovers_path(globus).exists()


def test_a_killed_first_deployment_goes_on_where_it_was(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def kill() -> int:
        raise KilledError

    service.fails["create"] = kill
    with monkeypatch.context() as killed:
        killed.setattr("cib_flows.deployment_attempt.Attempt._take_back", lambda self: None)
        with pytest.raises(KilledError):
            deploy(globus)
    registered = service.calls.count("register")
    service.fails.clear()
    deploy(globus)
    assert service.calls.count("register") == registered


def test_a_record_that_cannot_be_written_undoes_the_flow(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(globus)
    before = state(globus, service)
    change_text(monkeypatch, "build_image")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cib_flows.deployment_attempt.save_deployment", full)
    with pytest.raises(OSError, match="No space"):
        deploy(globus)
    assert state(globus, service) == before


def test_a_first_flow_is_deleted_when_its_record_cannot_be_written(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cib_flows.deployment_attempt.save_deployment", full)
    with pytest.raises(OSError, match="No space"):
        deploy(globus)
    assert (service.flow, service.functions) == (None, {})


def test_an_update_whose_answer_was_lost_counts_when_it_has_arrived(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch, cloud: Any
) -> None:
    deploy(globus)
    change_text(monkeypatch, "build_image")

    def applied_and_lost(request: Any) -> tuple[int, dict[str, str], str]:
        service._update(request)
        return 502, {}, "bad gateway"

    cloud.remove("PUT", f"{FLOWS}/flows/{FLOW_ID}")
    cloud.add_callback("PUT", f"{FLOWS}/flows/{FLOW_ID}", applied_and_lost)
    after = deploy(globus)
    assert load_deployment(globus) == after
    assert find_drift(globus) == []


# -- who may, and what runs ask for --------------------------------------------------------------


def test_roles_are_sent_remembered_and_left_alone_afterwards(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    words = ["--starter", URN, "--viewer", "public", "--run-manager", URN]
    done = CliRunner().invoke(main, ["deploy", *words, "--json"])
    assert done.exit_code == 0, done.output
    assert service.flow is not None
    assert (service.flow["flow_starters"], service.flow["flow_viewers"]) == ([URN], ["public"])
    record = json.loads(globus.record_path.read_text())
    assert record["given_roles"]["run_managers"] == [URN]
    # an administrator adds someone in the web app
    service.flow["flow_starters"] = [URN, "all_authenticated_users"]
    change_text(monkeypatch, "build_image")
    ensure_deployed(globus)
    assert service.flow["flow_starters"] == [URN, "all_authenticated_users"]
    deploy(globus, force=True)
    assert service.flow["flow_starters"] == [URN]


def test_an_unknown_role_is_refused(globus: Globus, service: Service) -> None:
    with pytest.raises(UsageError, match="no role kings; roles are flow_viewers"):
        deploy(globus, choices=Choices(roles={"kings": [URN]}))


def test_a_subscription_is_sent_and_remembered(globus: Globus, service: Service) -> None:
    deploy(globus, choices=Choices(subscription_id=COLLECTION))
    assert service.flow is not None
    assert service.flow["subscription_id"] == COLLECTION
    assert deploy(globus).subscription_id == COLLECTION
    assert service.calls.count("update") == 0


def test_a_wrong_subscription_is_refused_at_once(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    done = CliRunner().invoke(main, ["deploy", "--subscription-id", "ours"])
    assert done.exit_code == 2
    assert "neither a subscription's UUID nor DEFAULT" in done.stderr
    assert service.calls == []


def collection(cloud: responses.RequestsMock, **fields: Any) -> None:
    document = {"id": COLLECTION, "entity_type": "GCSv5_mapped_collection", **fields}
    cloud.get(f"{TRANSFER}/v0.10/endpoint/{COLLECTION}", json=document)


def test_runs_ask_for_access_to_the_collections_that_were_deployed(
    globus: Globus, service: Service, cloud: responses.RequestsMock
) -> None:
    collection(cloud, high_assurance=False)
    deployed = deploy(globus, choices=Choices(data_access=[COLLECTION]))
    assert deployed.data_access == [COLLECTION]
    assert deploy(globus).data_access == [COLLECTION]
    cloud.post(f"{FLOWS}/flows/{FLOW_ID}/run", json={"run_id": FLOW_ID})
    start_once(globus, FLOW_ID, {}, "label", [])
    asked = [
        str(call.request.body)
        for call in cloud.calls
        if call.request.url.endswith("/oauth2/token") and call.request.body
    ]
    assert any(f"{COLLECTION}%2Fdata_access" in body for body in asked)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"entity_type": "GCSv5_guest_collection"}, "is not a mapped one"),
        ({"high_assurance": True}, "has High Assurance"),
    ],
)
def test_other_collections_take_no_such_consent(
    globus: Globus,
    service: Service,
    cloud: responses.RequestsMock,
    fields: dict[str, Any],
    said: str,
) -> None:
    collection(cloud, **fields)
    with pytest.raises(UsageError, match=said):
        deploy(globus, choices=Choices(data_access=[COLLECTION]))
    assert service.functions == {}


# -- what an endpoint allows ---------------------------------------------------------------------


def test_an_administrator_gets_the_list_with_the_functions_of_runs_under_way(
    globus: Globus, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = deploy(globus)
    change_text(monkeypatch, "build_image")
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    target = tmp_path / "allowed_functions.yaml"
    done = CliRunner().invoke(main, ["deploy", "--allowed-functions", str(target)])
    assert done.exit_code == 0, done.output
    import yaml

    listed = yaml.safe_load(target.read_text())["allowed_functions"]
    second = load_deployment(globus)
    assert second is not None
    assert set(listed) == {*second.function_ids.values(), first.functions["build_image"].id}
    printed = CliRunner().invoke(main, ["deploy", "--allowed-functions", "-"])
    assert printed.stdout == target.read_text()


def test_the_list_of_a_home_keeps_what_other_records_put_there(
    globus: Globus, service: Service, tmp_path: Path
) -> None:
    deployment = deploy(globus)
    other, lost = tmp_path / "other.json", tmp_path / "lost.json"
    other.write_text("{}")
    home = tmp_path / "home"
    (home / "endpoint").mkdir(parents=True)
    theirs = replace(
        deployment, functions={"theirs": replace(deployment.functions["build_image"], id=URN[-36:])}
    )
    assert allow_list.write_allow_list(home, theirs, other) is None
    allow_list.write_allow_list(home, theirs, lost)
    before = allow_list.write_allow_list(home, deployment, globus.record_path)
    text = allow_list.allow_list_path(home).read_text()
    assert text.count(str(other)) == 1
    assert str(lost) not in text
    assert text.count(str(globus.record_path)) == len(deployment.functions)
    assert allow_list.missing_from(home, deployment) == []
    allow_list.restore(home, before)
    assert set(allow_list.missing_from(home, deployment)) == set(deployment.functions)
    allow_list.restore(home, None)
    assert allow_list.missing_from(home, deployment) == []
    assert BUILD_ENDPOINT not in text
