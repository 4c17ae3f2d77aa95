"""Which Globus is spoken to; every wrong setting is one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cib_flows.errors import UsageError
from cib_flows.profiles import connect, connect_as, record_place

LOCAL = {
    "GLOBUS_SDK_ENVIRONMENT": "local",
    **{
        f"GLOBUS_SDK_SERVICE_URL_{name}": "http://127.0.0.1:9/"
        for name in ("AUTH", "FLOWS", "COMPUTE", "TRANSFER")
    },
    "CIB_FLOWS_CLIENT_ID": "7d0c6bf3-6ff8-4b7d-9f0b-5b7c5d5f3c11",
    "CIB_FLOWS_CLIENT_SECRET": "x",
    "CIB_FLOWS_BUILD_ENDPOINT": "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01",
}


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_home_that_does_not_run_names_the_command_that_starts_it(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    with pytest.raises(UsageError, match="cib-flows local start") as refused:
        connect("local", tmp_path / "home")
    assert str(tmp_path / "home") in refused.value.message
    assert "GLOBUS_SDK_ENVIRONMENT" not in os.environ


def test_the_variables_of_local_env_are_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_all(monkeypatch, {**LOCAL, "CIB_FLOWS_HOME": str(tmp_path)})
    globus = connect()
    assert globus.profile == "local"
    assert globus.build_endpoint == LOCAL["CIB_FLOWS_BUILD_ENDPOINT"]
    assert globus.record_path == tmp_path / "deployment.json"
    assert globus.flows.base_url == "http://127.0.0.1:9/"
    assert globus.compute.base_url == "http://127.0.0.1:9/"
    assert globus.flow(LOCAL["CIB_FLOWS_CLIENT_ID"]).base_url == "http://127.0.0.1:9/"


def test_a_local_globus_is_not_asked_at_the_pace_of_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_all(monkeypatch, {**LOCAL, "CIB_FLOWS_HOME": str(tmp_path)})
    monkeypatch.setattr("cib_flows.services.time.sleep", pytest.fail)
    for pacer in (connect().compute_pacer, connect().flows_pacer, connect_as(None).compute_pacer):
        for _ in range(100):
            pacer.wait()


def test_two_local_globuses_without_a_known_home_have_records_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_all(monkeypatch, LOCAL)
    first = connect().record_path
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", "http://127.0.0.1:10/")
    assert connect().record_path != first


def test_half_of_the_local_variables_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOBUS_SDK_ENVIRONMENT", "local")
    with pytest.raises(UsageError, match="cib-flows local env"):
        connect()


def test_globus_org_is_not_confused_with_a_local_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_all(monkeypatch, LOCAL)
    with pytest.raises(UsageError, match="GLOBUS_SDK_ENVIRONMENT=local"):
        connect("globus")


def test_globus_org_needs_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as refused:
        connect("globus")
    assert "CIB_FLOWS_NATIVE_CLIENT_ID" in (refused.value.hint or "")
    monkeypatch.setenv("CIB_FLOWS_CLIENT_ID", LOCAL["CIB_FLOWS_CLIENT_ID"])
    with pytest.raises(UsageError, match="needs both"):
        connect("globus")


def test_a_person_logs_in_through_a_user_app(monkeypatch: pytest.MonkeyPatch) -> None:
    import globus_sdk

    monkeypatch.setenv("CIB_FLOWS_NATIVE_CLIENT_ID", LOCAL["CIB_FLOWS_CLIENT_ID"])
    globus = connect("globus")
    assert isinstance(globus.app, globus_sdk.UserApp)
    assert globus.flows.base_url == "https://flows.automate.globus.org/"
    assert globus.app.login_required()


def test_a_login_prompt_leaves_standard_output_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cib_flows.services import explained

    monkeypatch.setenv("CIB_FLOWS_NATIVE_CLIENT_ID", LOCAL["CIB_FLOWS_CLIENT_ID"])
    monkeypatch.setattr("builtins.input", lambda *prompt: (_ for _ in ()).throw(EOFError))
    globus = connect("globus")
    with pytest.raises(UsageError, match="login"), explained("look"):
        globus.flows.list_flows()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "https://auth.globus.org/v2/oauth2/authorize" in captured.err


@pytest.mark.parametrize(
    ("profile", "home", "sentence"),
    [
        ("mars", None, "no profile 'mars'"),
        ("globus", "somewhere", "belongs to the profile local"),
    ],
)
def test_a_wrong_choice_is_named(profile: str, home: str | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        connect(profile, home)


def test_an_endpoint_in_the_environment_must_be_a_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**LOCAL, "CIB_FLOWS_BUILD_ENDPOINT": "delta"})
    with pytest.raises(UsageError, match="'delta'"):
        connect()


def test_an_app_of_the_caller_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import globus_sdk

    app = globus_sdk.ClientApp("x", client_id=LOCAL["CIB_FLOWS_CLIENT_ID"], client_secret="x")
    assert connect_as(app).app is app
    assert connect_as(app).profile == "globus"
    set_all(monkeypatch, LOCAL)
    assert connect_as(app).profile == "local"


def test_a_record_is_found_without_a_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert record_place("local", tmp_path) == tmp_path / "deployment.json"
    assert record_place("globus").name == "globus.json"
    monkeypatch.setenv("CIB_FLOWS_HOME", str(tmp_path / "other"))
    assert record_place() == tmp_path / "other" / "deployment.json"
