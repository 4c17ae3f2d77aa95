"""Further endpoints of one home: other sites on the same machine, through the same Compute service."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import globus_sdk
import pytest
from click.testing import CliRunner, Result

from cib_flows.cli import main
from cib_flows.errors import NotFoundError, UsageError
from cib_flows.local import control
from cib_flows.local.compute.sites import SiteEndpoint, add_site, known_sites, remove_site
from cib_flows.local.home import Home

from .conftest import JSON_DATA, LocalGlobus, pack, until, value
from .test_restart import WAITER, begun, engine, gone, kill_server

WHERE = (
    "def where():\n    import json, os\n"
    "    return json.load(open(os.environ['CIB_FLOWS_SITE']))['root']\n"
)


@pytest.fixture
def sites(own_globus: Callable[..., LocalGlobus]) -> tuple[LocalGlobus, dict[str, SiteEndpoint]]:
    globus = own_globus()
    made = {name: add_site(globus.home, name) for name in ("delta", "polaris")}
    return globus, made


def asked(globus: LocalGlobus, endpoint_id: str, function_id: str) -> object:
    answer = globus.compute_v3.submit(
        endpoint_id,
        {
            "tasks": {function_id: [pack([], {})]},
            "user_endpoint_config": {"profile": "control"},
            "result_serializers": [JSON_DATA],
        },
    )
    return value(globus.finished(answer["tasks"][function_id][0]))


def test_each_site_has_its_own_root_and_they_are_declared_while_the_server_runs(
    sites: tuple[LocalGlobus, dict[str, SiteEndpoint]],
) -> None:
    globus, made = sites
    function_id = globus.register(WHERE)
    found = {name: asked(globus, site.id, function_id) for name, site in made.items()}
    assert found == {name: site.root for name, site in made.items()}
    assert asked(globus, globus.endpoint_id, function_id) == globus.home.site()["root"]


def test_they_are_listed_described_and_online(
    sites: tuple[LocalGlobus, dict[str, SiteEndpoint]],
) -> None:
    globus, made = sites
    listed = {entry["name"]: entry["uuid"] for entry in globus.compute_v2.get_endpoints().data}
    assert {name: listed[name] for name in made} == {name: s.id for name, s in made.items()}
    document = globus.compute_v2.get_endpoint(made["delta"].id)
    assert document["display_name"] == "cib-flows delta"
    pattern = document["user_config_schema"]["properties"]["container_uri"]["pattern"]
    assert made["delta"].root.replace("-", r"\-").replace(".", r"\.") in pattern
    assert globus.compute_v2.get_endpoint_status(made["delta"].id)["status"] == "online"


def test_staging_is_a_collection_of_the_site(
    sites: tuple[LocalGlobus, dict[str, SiteEndpoint]],
) -> None:
    globus, made = sites
    Path(made["delta"].staging, "here").write_text("x")
    names = [e["name"] for e in globus.transfer.operation_ls(made["delta"].collection_id)["DATA"]]
    assert names == ["here"]
    assert globus.transfer.operation_ls(made["polaris"].collection_id)["DATA"] == []


def test_one_that_is_taken_off_is_unknown_and_keeps_its_files(
    sites: tuple[LocalGlobus, dict[str, SiteEndpoint]],
) -> None:
    globus, made = sites
    function_id = globus.register(WHERE)
    remove_site(globus.home, "delta")
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        asked(globus, made["delta"].id, function_id)
    assert refused.value.http_status == 404
    assert Path(made["delta"].root).is_dir()
    assert [site.name for site in known_sites(globus.home)] == ["polaris"]
    with pytest.raises(NotFoundError, match="no endpoint 'delta'"):
        remove_site(globus.home, "delta")


def test_a_site_profile_may_be_given_anew_and_the_id_stays(
    sites: tuple[LocalGlobus, dict[str, SiteEndpoint]], tmp_path: Path
) -> None:
    globus, made = sites
    again = add_site(globus.home, "delta", {"root": str(tmp_path / "else"), "allowed_bases": ["x"]})
    assert again.id == made["delta"].id
    assert asked(globus, again.id, globus.register(WHERE)) == str(tmp_path / "else")
    assert json.loads(again.home.site_path.read_text())["allowed_bases"] == ["x"]


def under_way(globus: LocalGlobus, site: SiteEndpoint, folder: Path) -> str:
    """The id of a task that has begun at the site, and waits."""
    folder.mkdir()
    function_id = globus.register(WAITER)
    answer = globus.compute_v3.submit(
        site.id,
        {
            "tasks": {function_id: [pack([str(folder)], {})]},
            "user_endpoint_config": {"profile": "control"},
            "result_serializers": [JSON_DATA],
        },
    )
    until(lambda: begun(folder))
    return str(answer["tasks"][function_id][0])


def test_a_task_under_way_there_outlives_the_server_and_runs_once(
    sites: tuple[LocalGlobus, dict[str, SiteEndpoint]],
    own_globus: Callable[..., LocalGlobus],
    tmp_path: Path,
) -> None:
    globus, made = sites
    task_id = under_way(globus, made["delta"], tmp_path / "work")
    kill_server(globus.home)
    again = own_globus()
    (tmp_path / "work" / "go").touch()
    assert value(again.finished(task_id)) == "done"
    assert len(begun(tmp_path / "work")) == 1


def test_stopping_a_home_whose_server_was_killed_ends_what_runs_there(
    sites: tuple[LocalGlobus, dict[str, SiteEndpoint]], tmp_path: Path
) -> None:
    globus, made = sites
    under_way(globus, made["delta"], tmp_path / "work")
    kill_server(globus.home)
    pid = engine(made["delta"].home)
    control.stop(globus.home)
    until(lambda: gone(pid))


def test_as_a_person_types_it(tmp_path: Path) -> None:
    Home(tmp_path / "home").prepare()

    def run(*words: str) -> Result:
        command = ["local", "endpoint", *words, "--home", str(tmp_path / "home"), "--json"]
        return CliRunner().invoke(main, command)

    profile = tmp_path / "site.json"
    profile.write_text(json.dumps({"allowed_bases": ["x"]}))
    added = run("add", "delta", "--site", str(profile))
    assert added.exit_code == 0, added.output
    assert json.loads(run("list").stdout)["endpoints"] == [json.loads(added.stdout)]
    refused = run("add", "Not A Name")
    assert refused.exit_code == 2
    assert "cannot name an endpoint" in refused.stderr
    unsafe = tmp_path / "unsafe.json"
    unsafe.write_text(json.dumps({"root": str(tmp_path / "a b")}))
    assert run("add", "other", "--site", str(unsafe)).exit_code == 2
    assert run("remove", "delta").exit_code == 0
    assert json.loads(run("list").stdout)["endpoints"] == []
    assert run("remove", "delta").exit_code == 1


@pytest.mark.parametrize("name", ["", "../x", "Delta", "a b", "-x", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(local_globus: LocalGlobus, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an endpoint"):
        add_site(local_globus.home, name)
