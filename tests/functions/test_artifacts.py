"""Which registries an image may be pushed to and pulled from."""

from __future__ import annotations

import pytest

from cib_flows.functions._shared.artifacts import artifact_reference
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions.pull_image import pull_image
from cib_flows.functions.push_image import push_image

from .conftest import Site


def test_a_reference_is_named_in_full(site: Site) -> None:
    site.set(payload_hosts=["127.0.0.1:5055"])
    host, name = artifact_reference("oras://127.0.0.1:5055/lab/demo", site.loaded())
    assert (host, name) == ("127.0.0.1:5055", "oras://127.0.0.1:5055/lab/demo:latest")


@pytest.mark.parametrize(
    "reference",
    [
        "demo:v1",
        "lab/demo:v1",
        "oras://ghcr.io/Lab/demo:v1",
        "oras://ghcr.io/lab/demo:v1; rm -rf /",
        "oras://user:secret@ghcr.io/lab/demo",
        f"oras://ghcr.io/lab/demo@sha256:{'0' * 64}",
        "--help",
        "",
    ],
)
def test_what_is_no_reference_reaches_no_command(site: Site, reference: str) -> None:
    with pytest.raises(StepFailed) as failure:
        artifact_reference(reference, site.loaded())
    assert failure.value.code == "illegal_name"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:5055", "localhost:5000", "169.254.169.254", "10.0.0.1:443"]
)
def test_a_host_of_the_sites_own_network_is_not_asked(site: Site, host: str) -> None:
    for result in (pull_image(f"oras://{host}/a/b:c"), push_image("demo", f"oras://{host}/a/b:c")):
        assert result["error"]["code"] == "registry_denied"


def test_the_expected_digest_must_be_one(site: Site) -> None:
    assert pull_image("oras://ghcr.io/a/b:c", "latest")["error"]["code"] == "illegal_name"
