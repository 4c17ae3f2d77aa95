"""Questions that a run asks, answered through the unmodified SDK."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from flow_testing import FlowsServer, identity, one_state, serving
from globus_sdk.testing.data.flows import get_web_input, list_web_inputs, respond_to_web_input

OPTIONS = [
    {"Value": "publish", "Label": "Publish", "Description": "Make it public."},
    {"Value": {"kept": True}, "Label": "Keep"},
]
CONTEXT = {"PresentationStyle": "Table", "Title": "Publish?", "Rows": [{"Field": "A", "Value": 1}]}
BODY = {"InputType": "Selection", "Context": CONTEXT, "Options": OPTIONS}


def asking(body: dict[str, Any], catch: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    awaiting: dict[str, Any] = {
        "Type": "AwaitWebInput",
        "Parameters": {"web_input_id.$": "$.asked.web_input_id"},
        "ResultPath": "$.answered",
        "End": True,
    }
    others = {"Await": awaiting}
    if catch is not None:
        awaiting["Catch"] = catch
        others["Late"] = {"Type": "Pass", "End": True}
    return one_state(
        {"Type": "CreateWebInput", "Parameters": body, "ResultPath": "$.asked", "Next": "Await"},
        **others,
    )


def asked_of(*names: str, viewers: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        **BODY,
        "RespondentUrns": [identity(name).urn for name in names],
        "ViewerUrns": [identity(name).urn for name in viewers],
    }


def blocked(server: FlowsServer, run_id: str) -> str:
    """The question that the run waits for; asked again until the run has come to it."""
    while True:
        run = server.client().get_run(run_id)
        assert run["status"] == "ACTIVE", run["details"]
        if run["blocking_web_input_id"] is not None:
            return str(run["blocking_web_input_id"])


def option(server: FlowsServer, web_input_id: str, label: str, name: str = "alice") -> str:
    shown = server.client(name).get_web_input(web_input_id)
    return next(str(o["option_id"]) for o in shown["options"] if o["label"] == label)


def refusal_of(call: Any, *arguments: Any, **named: Any) -> globus_sdk.FlowsAPIError:
    with pytest.raises(globus_sdk.FlowsAPIError) as refusal:
        call(*arguments, **named)
    return refusal.value


def test_an_answer_goes_on_with_the_options_value(server: FlowsServer) -> None:
    run_id = server.begin(asking(BODY))
    web_input_id = blocked(server, run_id)
    answer = server.client().respond_to_web_input(
        web_input_id, option(server, web_input_id, "Keep")
    )
    assert answer.data == respond_to_web_input.RESPOND_OK_RESPONSE
    run = server.settled(run_id)
    assert run["status"] == "SUCCEEDED"
    assert run["blocking_web_input_id"] is None
    output = run["details"]["output"]
    assert output["asked"] == {"web_input_id": web_input_id}
    assert output["answered"]["response"] == {"kept": True}
    codes = [entry["code"] for entry in server.log(run_id)]
    assert codes[1:5] == [
        "CreateWebInputStarted",
        "CreateWebInputCompleted",
        "AwaitWebInputStarted",
        "AwaitWebInputCompleted",
    ]


def test_documents_have_the_shape_of_the_sdks_fixtures(server: FlowsServer) -> None:
    run_id = server.begin(asking(asked_of("bob")))
    web_input_id = blocked(server, run_id)
    shown = server.client("bob").get_web_input(web_input_id).data
    fixture = get_web_input.WEB_INPUT_DOC_TABLE_CONTEXT
    assert set(shown) == set(fixture)
    assert set(shown["context"]) == set(fixture["context"])
    assert shown["context"]["rows"] == [{"field": "A", "value": "1"}]
    assert set(shown["options"][0]) == set(fixture["options"][0])
    assert set(shown["input_schema"]) == set(fixture["input_schema"])
    assert shown["input_schema"]["oneOf"][0]["const"] == shown["options"][0]["option_id"]
    assert shown["creator_urn"] == identity("alice").urn
    assert shown["roles"]["respondent_urns"] == [identity("bob").urn]
    pages = list(server.client("bob").paginated.list_web_inputs(filter_run_ids=run_id))
    (summary,) = pages[0]["web_input_summaries"]
    assert set(pages[0].data) == {"web_input_summaries", "marker"}
    assert set(summary) == set(list_web_inputs.FIRST_WEB_INPUT_SUMMARY)
    assert (summary["user_roles"], summary["title"]) == (["respondent"], "Publish?")


def test_text_is_shown_as_text(server: FlowsServer) -> None:
    context = {"PresentationStyle": "Text", "Title": "T", "Text": "Read this."}
    web_input_id = blocked(server, server.begin(asking({**BODY, "Context": context})))
    shown = server.client().get_web_input(web_input_id)
    assert set(shown["context"]) == set(get_web_input.WEB_INPUT_DOC["context"])  # type: ignore[call-overload]
    assert shown["context"]["text"] == "Read this."


def test_who_may_see_and_who_may_answer(server: FlowsServer) -> None:
    run_id = server.begin(asking(asked_of("bob", viewers=("carol",))))
    web_input_id = blocked(server, run_id)

    def roles(name: str) -> Any:
        return server.client(name).get_web_input(web_input_id)["user_roles"]

    assert (roles("alice"), roles("bob"), roles("carol")) == (
        ["viewer"],
        ["respondent"],
        ["viewer"],
    )
    unseen = refusal_of(server.client("dave").get_web_input, web_input_id)
    assert unseen.http_status == 404
    assert set(unseen.raw_json or {}) - {"debug_id"} == set(get_web_input.NOT_FOUND_RESPONSE)
    choice = option(server, web_input_id, "Publish")
    for name in ("alice", "carol"):
        refusal = refusal_of(server.client(name).respond_to_web_input, web_input_id, choice)
        assert (refusal.http_status, refusal.code) == (403, "FORBIDDEN")
    assert server.client("bob").respond_to_web_input(web_input_id, choice)["status"] == "ok"
    assert server.settled(run_id)["details"]["output"]["answered"]["response"] == "publish"


def test_a_group_stands_for_everybody_and_the_log_says_so(server: FlowsServer) -> None:
    group = "urn:globus:group:id:7a2b8f0e-0000-4000-8000-000000000001"
    run_id = server.begin(asking({**BODY, "RespondentUrns": [group]}))
    web_input_id = blocked(server, run_id)
    choice = option(server, web_input_id, "Publish", "bob")
    server.client("bob").respond_to_web_input(web_input_id, choice)
    assert server.settled(run_id)["status"] == "SUCCEEDED"
    warnings = [w for entry in server.log(run_id) for w in entry["details"].get("warnings", ())]
    assert any(group in warning for warning in warnings)


def test_what_is_no_answer_is_refused_and_leaves_the_question_open(server: FlowsServer) -> None:
    run_id = server.begin(asking(BODY))
    web_input_id = blocked(server, run_id)
    refusal = refusal_of(server.client().respond_to_web_input, web_input_id, "publish")
    assert (refusal.http_status, refusal.code) == (422, "UNPROCESSABLE_ENTITY")
    assert "'publish' is not a registered option id" in str(refusal.raw_json)
    refusal = refusal_of(server.client().post, f"/web_inputs/{web_input_id}/respond", data={})
    assert refusal.http_status == 422
    assert server.client().get_web_input(web_input_id)["status"] == "open"


def test_a_second_answer_is_refused(server: FlowsServer) -> None:
    run_id = server.begin(asking(BODY))
    web_input_id = blocked(server, run_id)
    choice = option(server, web_input_id, "Publish")
    server.client().respond_to_web_input(web_input_id, choice)
    refusal = refusal_of(server.client().respond_to_web_input, web_input_id, choice)
    assert refusal.http_status == 409
    expected = copy.deepcopy(respond_to_web_input.CLOSED_RESPONSE["error"])
    expected["detail"] = f"Web Input {web_input_id} is already closed."
    assert (refusal.raw_json or {})["error"] == expected
    server.settled(run_id)
    assert server.client().get_web_input(web_input_id)["closed_timestamp"] is not None


def test_cancelling_the_run_closes_its_question(server: FlowsServer) -> None:
    run_id = server.begin(asking(BODY))
    web_input_id = blocked(server, run_id)
    choice = option(server, web_input_id, "Publish")
    assert server.client().cancel_run(run_id)["status"] == "FAILED"
    assert server.client().get_web_input(web_input_id)["status"] == "closed"
    refusal = refusal_of(server.client().respond_to_web_input, web_input_id, choice)
    assert refusal.http_status == 409
    server.client().delete_run(run_id)
    assert refusal_of(server.client().get_web_input, web_input_id).http_status == 404


def test_lists_are_filtered_ordered_and_paged(server: FlowsServer) -> None:
    name = "erin"
    flow_id = server.flow(asking(asked_of(name)))
    runs = [server.flow_client(flow_id).run_flow({})["run_id"] for _ in range(5)]
    ids = [blocked(server, run_id) for run_id in runs]
    client = server.client(name)
    pages = list(
        client.paginated.list_web_inputs(
            filter_flow_ids=flow_id, per_page=2, orderby="created_timestamp ASC"
        )
    )
    assert [len(page["web_input_summaries"]) for page in pages] == [2, 2, 1]
    assert [item["id"] for page in pages for item in page["web_input_summaries"]] == ids
    server.client(name).respond_to_web_input(ids[0], option(server, ids[0], "Keep", name))

    def found(**filters: Any) -> set[str]:
        filters.setdefault("filter_flow_ids", flow_id)
        return {item["id"] for item in client.list_web_inputs(**filters)}

    assert found(filter_states="closed") == {ids[0]}
    assert found(filter_states="open") == set(ids[1:])
    assert found(filter_run_ids=runs[:2]) == set(ids[:2])
    assert found(filter_roles="viewer") == set()
    assert found(filter_roles=["viewer", "respondent"]) == set(ids)
    with pytest.raises(globus_sdk.FlowsAPIError):
        client.list_web_inputs(orderby="title ASC")


def test_nobody_answers_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "state.db", {}, web_input_lifetime=0.05) as server:
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", server.url)
        run = server.run(asking(BODY))
        assert run["status"] == "FAILED"
        assert run["details"]["error"] == "Flows.WebInputExpired"
        catch = [{"ErrorEquals": ["Flows.WebInputExpired"], "ResultPath": "$.e", "Next": "Late"}]
        run = server.run(asking(BODY, catch))
        assert run["status"] == "SUCCEEDED"
        assert "asked" in run["details"]["output"]
        asked = server.client().list_web_inputs()
        assert {item["status"] for item in asked} == {"closed"}


def test_a_question_outlives_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "state.db", {}) as server:
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", server.url)
        run_id = server.begin(asking(BODY))
        web_input_id = blocked(server, run_id)
    with serving(tmp_path / "state.db", {}) as server:
        assert blocked(server, run_id) == web_input_id
        choice = option(server, web_input_id, "Publish")
        server.client().respond_to_web_input(web_input_id, choice)
        assert server.settled(run_id)["details"]["output"]["answered"]["response"] == "publish"


WRONG = {
    "InputType": ({**BODY, "InputType": "Text"}, "'Selection' as InputType"),
    "Options": ({**BODY, "Options": []}, "1 to 100 options as Options"),
    "Value": ({**BODY, "Options": [{"Label": "x"}]}, "Value as Options[0]"),
    "style": ({**BODY, "Context": {"Title": "x"}}, "Context.PresentationStyle"),
    "title": ({**BODY, "Context": {"PresentationStyle": "Text"}}, "Context.Title"),
    "rows": (
        {**BODY, "Context": {**CONTEXT, "Rows": [{"Field": "a"}]}},
        "Context.Rows[0]",
    ),
    "urns": ({**BODY, "RespondentUrns": ["bob"]}, "RespondentUrns"),
}


@pytest.mark.parametrize(("body", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_asked_fails_the_run_with_a_sentence(
    server: FlowsServer, body: dict[str, Any], words: str
) -> None:
    run = server.run(asking(body))
    assert run["status"] == "FAILED"
    assert words in run["details"]["description"]


def test_another_runs_question_cannot_be_awaited(server: FlowsServer) -> None:
    first = server.begin(asking(BODY))
    web_input_id = blocked(server, first)
    state = {
        "Type": "AwaitWebInput",
        "Parameters": {"web_input_id": web_input_id},
        "ResultPath": "$.a",
        "End": True,
    }
    run = server.run(one_state(state))
    assert "This run has no web input" in run["details"]["description"]
