"""Who may talk to the server at all."""

from __future__ import annotations

import globus_sdk
import pytest
import requests

from .conftest import LocalGlobus


def get(globus: LocalGlobus, path: str, **headers: str) -> requests.Response:
    return requests.get(globus.url + path, headers=headers, timeout=10)


def test_without_a_token_only_the_version_is_told(local_globus: LocalGlobus) -> None:
    assert get(local_globus, "v2/version").status_code == 200
    for path in ("v2/endpoints", "flows", "v0.10/task_list", "v2/oauth2/userinfo", "nothing"):
        assert get(local_globus, path).status_code == 401, path


def test_the_homes_token_opens_every_service(local_globus: LocalGlobus) -> None:
    bearer = f"Bearer {local_globus.home.token()}"
    for path in ("v2/endpoints", "flows", "v0.10/task_list", "v2/oauth2/userinfo"):
        assert get(local_globus, path, Authorization=bearer).status_code == 200, path


def test_a_name_that_was_rebound_to_loopback_is_refused(local_globus: LocalGlobus) -> None:
    bearer = f"Bearer {local_globus.home.token()}"
    for host in ("evil.example", "evil.example:5000", "127.0.0.1.evil.example", "localhost.evil"):
        answer = get(local_globus, "v2/endpoints", Authorization=bearer, Host=host)
        assert answer.status_code == 403, host
    for host in ("localhost:5000", "127.0.0.1:1", "[::1]:5000", "LOCALHOST"):
        answer = get(local_globus, "v2/endpoints", Authorization=bearer, Host=host)
        assert answer.status_code == 200, host


def test_a_foreign_web_page_is_refused(local_globus: LocalGlobus) -> None:
    bearer = f"Bearer {local_globus.home.token()}"
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:5173", 200),
    ):
        answer = get(local_globus, "v2/endpoints", Authorization=bearer, Origin=origin)
        assert answer.status_code == status, origin


def test_a_request_of_more_than_ten_megabytes_is_refused(local_globus: LocalGlobus) -> None:
    answer = requests.post(
        local_globus.url + "v3/functions",
        headers={"Authorization": f"Bearer {local_globus.home.token()}"},
        data=b"x" * (12 * 1024 * 1024),
        timeout=30,
    )
    assert answer.status_code == 413


def test_an_unknown_route_is_named(local_globus: LocalGlobus) -> None:
    bearer = f"Bearer {local_globus.home.token()}"
    answer = get(local_globus, "v9/nothing", Authorization=bearer)
    assert answer.status_code == 404
    assert "GET /v9/nothing" in answer.json()["message"]


def test_flows_errors_have_its_shape_whoever_refuses(local_globus: LocalGlobus) -> None:
    stranger = globus_sdk.FlowsClient(authorizer=globus_sdk.AccessTokenAuthorizer("wrong"))
    for client, path, status in (
        (stranger, "/flows", 401),
        (local_globus.flows, "/batch/runs", 501),
        (local_globus.flows, "/runs/x/nothing", 404),
    ):
        with pytest.raises(globus_sdk.FlowsAPIError) as error:
            client.get(path)
        assert error.value.http_status == status
        assert error.value.raw_json is not None
        assert error.value.raw_json["error"]["detail"] == error.value.message


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("v2/groups/my_groups", "Globus Groups"),
        ("jobs/", "Globus Timers"),
        ("v0.10/bookmark_list", "bookmarks"),
        ("v0.10/endpoint/x/role_list", "roles of collections"),
    ],
)
def test_what_is_not_served_says_so(local_globus: LocalGlobus, path: str, service: str) -> None:
    bearer = f"Bearer {local_globus.home.token()}"
    answer = get(local_globus, path, Authorization=bearer)
    assert (answer.status_code, answer.json()["code"]) == (501, "NOT_IMPLEMENTED")
    assert service in answer.json()["message"]


@pytest.mark.parametrize("path", ["v3/functions", "v0.10/transfer", "v1/index", "flows"])
def test_json_without_a_bottom_is_refused(local_globus: LocalGlobus, path: str) -> None:
    answer = requests.post(
        local_globus.url + path,
        headers={"Authorization": f"Bearer {local_globus.home.token()}"},
        data=b"[" * 5000 + b"]" * 5000,
        timeout=10,
    )
    assert answer.status_code in (400, 422), answer.text


def test_a_number_without_an_end_is_refused(local_globus: LocalGlobus) -> None:
    bearer = f"Bearer {local_globus.home.token()}"
    answer = get(local_globus, f"v0.10/task_list?offset={'9' * 20}", Authorization=bearer)
    assert answer.status_code == 400
    assert "offset" in answer.json()["message"]
