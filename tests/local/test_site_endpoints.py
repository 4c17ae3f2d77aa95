"""Further endpoints of one home: other sites on the same machine, through the same Compute service."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import globus_sdk
import pytest

from cib_flows.errors import NotFoundError, UsageError
from cib_flows.local.compute.sites import SiteEndpoint, add_site, known_sites, remove_site

from .conftest import JSON_DATA, LocalGlobus, pack, value

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


@pytest.mark.parametrize("name", ["", "../x", "Delta", "a b", "-x", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(local_globus: LocalGlobus, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an endpoint"):
        add_site(local_globus.home, name)
