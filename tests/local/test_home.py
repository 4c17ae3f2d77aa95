from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cib_flows.errors import UsageError
from cib_flows.local.home import Home
from cib_flows.local.identities import Identities
from cib_flows.local.transfer.collections import Collections


@pytest.mark.parametrize("name", ["a b", "a;b", "a$b", "a'b", "a\nb", "å"])
def test_a_home_that_a_launch_line_cannot_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="launch line"):
        Home(tmp_path / name)


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    for path in (home.token_path, home.client_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_preparing_again_changes_no_identity(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    first, token = home.prepare(), home.token()
    assert (home.prepare(), home.token()) == (first, token)


def test_the_site_profile_is_the_default_under_what_was_given(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    client = home.prepare()
    home.write_site({"ca_bundle": "/ca.pem"})
    site = json.loads(home.site_path.read_text())
    assert site["ca_bundle"] == "/ca.pem"
    assert site["root"] == str(home.path / "containers")
    assert Path(site["root"]).is_dir()
    assert site["staging"]["collection_id"] == client.staging_collection_id
    assert home.write_site()["ca_bundle"] == "/ca.pem", "a start without --site keeps the profile"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"root": 5}'])
def test_a_damaged_site_profile_is_named(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.site_path.write_text(text)
    with pytest.raises(UsageError, match=r"site\.json"):
        home.write_site()
    with pytest.raises(UsageError, match="'root'"):
        home.write_site({"root": 5})


def test_an_empty_token_is_nobodys(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.token_path.write_text("\n")
    with pytest.raises(UsageError, match="token is empty"):
        home.prepare()


@pytest.mark.parametrize("text", ["{", '[{"id": "x"}]', "5"])
def test_damaged_declarations_are_named(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    for name, declared in (("collections", Collections), ("identities", Identities)):
        (home.path / f"{name}.json").write_text(text)
        with pytest.raises(UsageError, match=rf"{name}\.json cannot be read"):
            declared.of_home(home).all()


def test_no_address_is_given_while_nothing_runs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(UsageError, match="cib-flows local start --home"):
        home.environment()


def test_a_damaged_client_file_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.client_path.write_text("{")
    with pytest.raises(UsageError, match=r"client\.json"):
        home.client()
