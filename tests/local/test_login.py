"""A person logs in through the unmodified ``globus_sdk.UserApp``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
import requests
from click.testing import CliRunner
from globus_sdk import GlobusAppConfig, NativeAppAuthClient, UserApp
from globus_sdk.login_flows import CommandLineLoginFlowManager

from cib_flows.cli.local import local
from cib_flows.local.identities import Identities

from .conftest import LocalGlobus


def code(globus: LocalGlobus, *options: str) -> str:
    done = CliRunner().invoke(local, ["code", "--json", "--home", str(globus.home.path), *options])
    assert done.exit_code == 0, done.output
    found: str = json.loads(done.output)["code"]
    return found


class Person(CommandLineLoginFlowManager):
    """Opens the page, runs the command, pastes the code."""

    globus: LocalGlobus
    options: tuple[str, ...] = ()

    def print_authorize_url(self, authorize_url: str) -> None:
        page = requests.get(authorize_url, timeout=30)
        assert page.status_code == 200
        assert "cib-flows local code" in page.text

    def prompt_for_code(self) -> str:
        return code(self.globus, *self.options)


def user_app(globus: LocalGlobus, *options: str) -> UserApp:
    manager = type("Manager", (Person,), {"globus": globus, "options": options})
    return UserApp(
        "tests",
        client_id=str(uuid.uuid4()),
        config=GlobusAppConfig(
            token_storage="memory", login_flow_manager=manager, request_refresh_tokens=True
        ),
    )


DEFINITION: dict[str, Any] = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}


def test_a_person_logs_in_and_works(local_globus: LocalGlobus) -> None:
    alice = Identities.of_home(local_globus.home).add("alice@example.org")
    app = user_app(local_globus, "--identity", "alice@example.org")
    flows = globus_sdk.FlowsClient(app=app)
    flow = flows.create_flow("hers", DEFINITION, {})
    assert flow["flow_owner"] == alice.identity.urn
    assert globus_sdk.AuthClient(app=app).userinfo()["sub"] == alice.id
    app.logout()


def native(globus: LocalGlobus) -> NativeAppAuthClient:
    client = NativeAppAuthClient(client_id=str(uuid.uuid4()))
    client.oauth2_start_flow(requested_scopes="openid profile", refresh_tokens=True)
    assert requests.get(client.oauth2_get_authorize_url(), timeout=30).ok
    return client


def test_a_native_application_refreshes_without_a_secret(local_globus: LocalGlobus) -> None:
    client = native(local_globus)
    tokens = client.oauth2_exchange_code_for_tokens(code(local_globus))
    assert tokens.decode_id_token()["sub"] == local_globus.home.client().client_id
    again = client.oauth2_refresh_token(tokens["refresh_token"])
    assert again["access_token"] != tokens["access_token"]
    client.oauth2_revoke_token(tokens["refresh_token"])


def test_codes_are_good_once_and_for_who_asked(local_globus: LocalGlobus) -> None:
    first, second = native(local_globus), native(local_globus)
    printed = code(local_globus)
    for bad in ("made up", local_globus.home.token()):
        with pytest.raises(globus_sdk.AuthAPIError) as refused:
            first.oauth2_exchange_code_for_tokens(bad)
        assert refused.value.http_status == 400
    assert first.oauth2_exchange_code_for_tokens(printed)["access_token"]
    with pytest.raises(globus_sdk.AuthAPIError):
        second.oauth2_exchange_code_for_tokens(printed)


def test_an_application_that_was_not_at_the_page_gets_nothing(local_globus: LocalGlobus) -> None:
    client = NativeAppAuthClient(client_id=str(uuid.uuid4()))
    client.oauth2_start_flow(requested_scopes="openid")
    with pytest.raises(globus_sdk.AuthAPIError):
        client.oauth2_exchange_code_for_tokens(code(local_globus))


def test_a_code_opens_no_route(local_globus: LocalGlobus) -> None:
    headers = {"Authorization": f"Bearer {code(local_globus)}"}
    assert requests.get(local_globus.url + "flows", headers=headers, timeout=30).status_code == 401


def test_the_page_refuses_what_is_no_login(local_globus: LocalGlobus) -> None:
    page = local_globus.url + "v2/oauth2/authorize"
    assert requests.get(page, timeout=30).status_code == 400
    query = {
        "response_type": "code",
        "code_challenge_method": "S256",
        "code_challenge": "a" * 43,
        "client_id": str(uuid.uuid4()),
        "scope": "<script>",
    }
    answer = requests.get(page, params=query, timeout=30)
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text


class Terminal:
    """The command line of a person at globus.org, in a process of its own; its services are the local ones."""

    def __init__(self, globus: LocalGlobus, folder: Path) -> None:
        self.globus = globus
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CIB_FLOWS_", "GLOBUS_"))
        }
        services = {
            name: value
            for name, value in globus.home.environment().items()
            if name.startswith("GLOBUS_SDK_SERVICE_URL_")
        }
        own = {
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "CIB_FLOWS_PROFILE": "globus",
            "CIB_FLOWS_NATIVE_CLIENT_ID": str(uuid.uuid4()),
        }
        self.environment = {**kept, **services, **own}

    def type(self, *words: str, logs_in: bool) -> tuple[int, str, str]:
        """Exit code, standard output and standard error; opens the page and pastes the code."""
        command = [sys.executable, "-c", "from cib_flows.cli import main; main()", *words]
        with subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.PIPE if logs_in else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stderr is not None
            said = ""
            for line in running.stderr:
                said += line
                address = re.search(r"http://\S+", line)
                if running.stdin is not None and address is not None:
                    assert requests.get(address[0], timeout=30).ok
                    running.stdin.write(code(self.globus) + "\n")
                    running.stdin.flush()
            assert running.stdout is not None
            printed = running.stdout.read()
        return running.returncode, printed, said


def test_the_command_line_asks_a_person_once(local_globus: LocalGlobus, tmp_path: Path) -> None:
    flow = local_globus.flows.create_flow("theirs", DEFINITION, {}, flow_viewers=["public"])["id"]
    record = {"format": 1, "flow_id": flow, "flow_sha256": "", "functions": {}}
    record |= dict.fromkeys(("build_endpoint", "run_endpoint"), str(uuid.uuid4()))
    (tmp_path / "record.json").write_text(json.dumps(record))
    terminal = Terminal(local_globus, tmp_path)
    terminal.environment["CIB_FLOWS_DEPLOYMENT"] = str(tmp_path / "record.json")
    status, printed, said = terminal.type("runs", "--json", logs_in=False)
    assert status == 2, said
    assert "Run the command in a terminal to log in" in json.loads(printed)["error"]["hint"]
    status, printed, said = terminal.type("runs", "--json", logs_in=True)
    assert (status, said.count("Log in to Globus here")) == (0, 1), said
    assert json.loads(printed) == {"ok": True, "runs": []}
    assert terminal.type("runs", logs_in=False) == (0, "", "There is no run yet.\n")
