"""The product's own deployment and catalogue on a real local Globus: its functions run, nobody else's do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cib_flows import deployment_state
from cib_flows.bundle import bundle_function
from cib_flows.catalogue import Catalogue
from cib_flows.deployment import Choices, deploy, find_drift, plan_deployment
from cib_flows.errors import AlreadyExistsError, InUseError, NotFoundError, UsageError
from cib_flows.functions._shared.catalogue import Catalogue as Storage
from cib_flows.functions._shared.catalogue import container_id_of
from cib_flows.profiles import Globus, connect
from cib_flows.services import Pacer

from .conftest import LocalGlobus


@pytest.fixture
def home_globus(
    own_globus: Callable[..., LocalGlobus], monkeypatch: pytest.MonkeyPatch
) -> tuple[LocalGlobus, Globus]:
    local = own_globus()
    # what 'connect' sets for this process ends with the test
    for name in local.environment:
        monkeypatch.setenv(name, "")
    globus = connect("local", local.home.path)
    globus.compute_pacer = Pacer(10_000)  # globus.org's limit need not be kept here
    return local, globus


def put(local: LocalGlobus, content: str, *tags: str) -> dict[str, Any]:
    """An image in the home's catalogue."""
    root = Path(local.home.site()["root"])
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    storage = Storage(str(root))
    record = {
        "container_id": container_id_of(sha256),
        "name": "demo",
        "path": storage.image_path("demo", sha256),
        "sha256": sha256,
        "bytes": len(content),
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    sif = root / "new"
    sif.write_text(content)
    storage.publish(str(sif), record)
    for tag in tags:
        storage.tag("demo", tag, record, "now")
    return record


def test_the_endpoint_runs_the_deployed_functions_and_no_others(
    home_globus: tuple[LocalGlobus, Globus], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, globus = home_globus
    assert plan_deployment(globus).flow == "create"
    first = deploy(globus)
    assert find_drift(globus) == []
    assert plan_deployment(globus).changes_nothing
    assert Catalogue(globus).list() == []
    refused = local.call("def other():\n    return 1\n")
    assert refused["status"] == "failed"
    assert "not permitted" in str(refused["exception"])

    def changed(name: str) -> Any:
        bundle = bundle_function(name)
        if name != "list_containers":
            return bundle
        source = bundle.source.replace('"total": len(rows)', '"total": 99')
        return replace(bundle, source=source, sha256=hashlib.sha256(source.encode()).hexdigest())

    monkeypatch.setattr(deployment_state, "bundle_function", changed)
    second = deploy(globus)
    assert second.functions["list_containers"].id != first.functions["list_containers"].id
    # the process that is under way learns of it, and still runs what older runs call
    assert Catalogue(globus).page(1)["total"] == 99
    globus.compute_v2.get_function(first.functions["list_containers"].id)
    text = (local.home.endpoint_dir / "allowed_functions.yaml").read_text()
    assert first.functions["list_containers"].id in text
    local.flows.update_flow(second.flow_id, title="Mine")
    assert "  title: Mine -> Build a container with cib-flows" in find_drift(globus)
    deploy(globus)
    assert find_drift(globus) == []


def test_a_run_asks_for_access_to_a_mapped_collection(
    home_globus: tuple[LocalGlobus, Globus],
) -> None:
    local, globus = home_globus
    deployed = deploy(globus, choices=Choices(data_access=[local.staging_id]))
    assert deployed.data_access == [local.staging_id]
    answer = globus.flow(deployed.flow_id, deployed.data_access).validate_run(
        {"name": "demo", "base": {"image": "debian:12"}}
    )
    assert answer.http_status == 200


def test_the_catalogue_is_managed_through_the_endpoint(
    home_globus: tuple[LocalGlobus, Globus],
) -> None:
    local, globus = home_globus
    deploy(globus)
    first, second = put(local, "one", "v1"), put(local, "two", "v2")
    catalogue = Catalogue(globus)
    assert [row["tags"] for row in catalogue.list(name="de*", sort="size")] != []
    catalogue.tag("demo:v1", "stable")
    with pytest.raises(AlreadyExistsError) as taken:
        catalogue.tag("demo:v2", "stable")
    assert taken.value.code == "already_exists"
    catalogue.tag("demo:v2", "stable", move=True)
    assert catalogue.show("demo:stable")["sha256"] == second["sha256"]
    with pytest.raises(UsageError) as illegal:
        catalogue.tag("demo:v2", "No Tag")
    assert illegal.value.code == "illegal_name"
    with pytest.raises(InUseError):
        catalogue.remove("demo:v1")
    catalogue.untag("demo:v1")
    catalogue.pin(first["container_id"], "the paper")
    with pytest.raises(InUseError, match="a pin"):
        catalogue.remove(first["container_id"])
    catalogue.unpin(first["container_id"])
    assert catalogue.remove(first["container_id"])["bytes"] == 3
    with pytest.raises(NotFoundError) as gone:
        catalogue.show(first["container_id"])
    assert gone.value.code == "container_not_found"
    with pytest.raises(NotFoundError) as missing:
        catalogue.register("/no/such.sif", "demo:v3")
    assert missing.value.code == "source_not_found"
    assert catalogue.collect_garbage(dry_run=False, empty_trash=True)["trash"]["count"] == 1
    assert catalogue.history("demo")[0]["event"] == "removed"
    os.unlink(Path(local.home.site()["root"]) / "index.json")
    assert catalogue.reindex()["containers"] == 1
