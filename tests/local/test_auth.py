from __future__ import annotations

from pathlib import Path

import globus_sdk
import pytest
import requests
from globus_sdk import ClientApp, ConfidentialAppAuthClient, GlobusAppConfig

from cib_flows.errors import NotFoundError, UsageError
from cib_flows.local.auth import AuthService, resource_server, split_scopes
from cib_flows.local.database import Database
from cib_flows.local.home import Home
from cib_flows.local.identities import Identities, KnownIdentity

from .conftest import LocalGlobus

COMPUTE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
FLOWS = "https://auth.globus.org/scopes/eec9b274-0c81-4334-bdc2-54e90e689b9a/run"
TRANSFER = "urn:globus:auth:scope:transfer.api.globus.org:all"


@pytest.fixture
def auth_client(local_globus: LocalGlobus) -> ConfidentialAppAuthClient:
    client = local_globus.home.client()
    return ConfidentialAppAuthClient(client.client_id, client.client_secret)


@pytest.mark.parametrize(
    ("scope", "server"),
    [
        ("openid", "auth.globus.org"),
        (TRANSFER, "transfer.api.globus.org"),
        (COMPUTE, "funcx_service"),
        (FLOWS, "flows.globus.org"),
        (
            "https://auth.globus.org/scopes/0795cf83-d2f3-4f0e-bb7d-4cbb1e1d9d4a/flow_x_user",
            "0795cf83-d2f3-4f0e-bb7d-4cbb1e1d9d4a",
        ),
    ],
)
def test_each_scope_belongs_to_its_service(scope: str, server: str) -> None:
    assert resource_server(scope) == server


def test_dependent_scopes_belong_to_the_scope_before_them() -> None:
    assert split_scopes(f"{FLOWS}[{TRANSFER}[*a b]] openid {TRANSFER}") == [
        FLOWS,
        "openid",
        TRANSFER,
    ]


def test_one_request_gets_a_token_for_each_service(auth_client: ConfidentialAppAuthClient) -> None:
    answer = auth_client.oauth2_client_credentials_tokens(
        requested_scopes=[COMPUTE, FLOWS, TRANSFER]
    )
    by_server = answer.by_resource_server
    assert set(by_server) == {"funcx_service", "flows.globus.org", "transfer.api.globus.org"}
    assert len({held["access_token"] for held in by_server.values()}) == 3
    assert by_server["funcx_service"]["scope"] == COMPUTE


def test_a_refresh_token_gets_the_same_scopes_again(
    auth_client: ConfidentialAppAuthClient,
) -> None:
    first = auth_client.oauth2_client_credentials_tokens(requested_scopes=[COMPUTE])
    again = auth_client.oauth2_refresh_token(first["refresh_token"])
    assert again["scope"] == COMPUTE
    assert again["access_token"] != first["access_token"]


def test_a_wrong_secret_gets_nothing(local_globus: LocalGlobus) -> None:
    stranger = ConfidentialAppAuthClient(local_globus.home.client().client_id, "guess")
    with pytest.raises(globus_sdk.AuthAPIError) as refusal:
        stranger.oauth2_client_credentials_tokens(requested_scopes=[COMPUTE])
    assert refusal.value.http_status == 401


def test_a_revoked_token_opens_nothing(
    local_globus: LocalGlobus, auth_client: ConfidentialAppAuthClient
) -> None:
    token = auth_client.oauth2_client_credentials_tokens(requested_scopes=[COMPUTE])["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(local_globus.url + "v2/endpoints", headers=headers, timeout=10).ok
    assert auth_client.oauth2_token_introspect(token)["active"]
    auth_client.oauth2_revoke_token(token)
    assert not auth_client.oauth2_token_introspect(token)["active"]
    answer = requests.get(local_globus.url + "v2/endpoints", headers=headers, timeout=10)
    assert answer.status_code == 401


def test_introspection_tells_whose_the_token_is(
    local_globus: LocalGlobus, auth_client: ConfidentialAppAuthClient
) -> None:
    token = auth_client.oauth2_client_credentials_tokens(requested_scopes=[FLOWS])["access_token"]
    found = auth_client.oauth2_token_introspect(token, include="identity_set")
    assert found["sub"] == local_globus.home.client().client_id
    assert found["identity_set"] == [found["sub"]]
    assert found["scope"] == FLOWS
    assert found["aud"] == ["flows.globus.org"]


def test_userinfo_names_the_client(local_globus: LocalGlobus) -> None:
    found = globus_sdk.AuthClient(app=local_globus.app).userinfo()
    assert found["sub"] == local_globus.home.client().client_id
    assert found["preferred_username"] == f"{found['sub']}@clients.auth.globus.org"


def test_identities_are_found_by_id_and_by_name(local_globus: LocalGlobus) -> None:
    client = globus_sdk.AuthClient(app=local_globus.app)
    own = local_globus.home.client().client_id
    by_id = client.get_identities(ids=[own])["identities"]
    by_name = client.get_identities(usernames=f"{own}@clients.auth.globus.org")["identities"]
    assert by_id == by_name
    assert by_id[0]["id"] == own
    assert client.get_identities(usernames="nobody@example.org")["identities"] == []


def test_tokens_outlive_the_server_but_not_the_home(tmp_path: Path) -> None:
    def service(name: str) -> AuthService:
        home = Home(tmp_path / name)
        key = home.prepare().signing_key
        return AuthService(key, Identities.of_home(home), Database(tmp_path / f"{name}.db"))

    token = service("one").issue("funcx_service", [COMPUTE])
    assert service("one").read(token) is not None
    assert service("other").read(token) is None
    assert service("one").read(token + "x") is None
    assert service("one").read(token, "refresh") is None


@pytest.fixture
def alice(local_globus: LocalGlobus) -> KnownIdentity:
    return Identities.of_home(local_globus.home).add("alice@example.org")


def test_a_declared_identity_acts_as_itself(
    local_globus: LocalGlobus, alice: KnownIdentity
) -> None:
    app = ClientApp(
        "alice",
        client_id=alice.id,
        client_secret=alice.secret,
        config=GlobusAppConfig(token_storage="memory"),
    )
    found = globus_sdk.AuthClient(app=app).userinfo()
    assert (found["sub"], found["preferred_username"]) == (alice.id, "alice@example.org")
    flows = globus_sdk.FlowsClient(app=app)
    flow = flows.create_flow(
        "hers", {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}, {}
    )
    assert flow["flow_owner"] == f"urn:globus:auth:identity:{alice.id}"
    with pytest.raises(globus_sdk.FlowsAPIError) as refused:
        local_globus.flows.get_flow(flow["id"])
    assert refused.value.http_status in (403, 404)


def test_a_ready_made_token_is_its_owners(local_globus: LocalGlobus, alice: KnownIdentity) -> None:
    client = globus_sdk.AuthClient(authorizer=globus_sdk.AccessTokenAuthorizer(alice.token))
    assert client.userinfo()["sub"] == alice.id


def test_refresh_tokens_are_good_for_their_client_only(
    local_globus: LocalGlobus, auth_client: ConfidentialAppAuthClient, alice: KnownIdentity
) -> None:
    first = auth_client.oauth2_client_credentials_tokens(requested_scopes=[COMPUTE])
    assert auth_client.oauth2_token_introspect(first["refresh_token"])["active"]
    hers = ConfidentialAppAuthClient(alice.id, alice.secret)
    with pytest.raises(globus_sdk.AuthAPIError):
        hers.oauth2_refresh_token(first["refresh_token"])
    auth_client.oauth2_revoke_token(first["refresh_token"])
    with pytest.raises(globus_sdk.AuthAPIError):
        auth_client.oauth2_refresh_token(first["refresh_token"])


def test_the_same_name_is_the_same_identity(
    local_globus: LocalGlobus, alice: KnownIdentity
) -> None:
    identities = Identities.of_home(local_globus.home)
    assert identities.add("alice@example.org") == alice
    with pytest.raises(UsageError, match="user name"):
        identities.add("not a name")
    with pytest.raises(NotFoundError, match="identity add bob"):
        identities.named("bob")
