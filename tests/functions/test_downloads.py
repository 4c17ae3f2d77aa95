"""Images and payloads that are fetched over connections that break: at the wire, from a server that drops them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import downloads
from cib_flows.functions.download_image import download_image
from cib_flows.functions.fetch_payload import fetch_payload
from cib_flows.functions.pull_image import pull_image

from .conftest import Run, Site
from .unsteady import CONTENT, SHA256, Unsteady

SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"


def incoming(site: Site) -> list[str]:
    return sorted(os.listdir(site.root / "incoming"))


def fetched(result: dict[str, Any], site: Site) -> dict[str, Any]:
    assert result["ok"], result
    assert Path(result["path"]).read_bytes() == CONTENT
    assert result["sha256"] == SHA256
    assert incoming(site) == [f"{SHA256}.sif"]
    return result


def refused(result: dict[str, Any], code: str) -> str:
    assert not result["ok"]
    assert result["error"]["code"] == code, result
    return str(result["error"]["message"])


def test_a_steady_server_is_asked_once(site: Site, unsteady: Unsteady) -> None:
    assert fetched(download_image(unsteady.url, SHA256), site)["resumed_at"] == []
    assert unsteady.ranges == [""]


def test_it_goes_on_where_the_connection_broke(site: Site, unsteady: Unsteady) -> None:
    unsteady.drops = [300_000, 300_000, 1]
    result = fetched(download_image(unsteady.url, SHA256), site)
    assert result["resumed_at"] == [300_000, 600_000, 600_001]
    assert unsteady.ranges == ["", "bytes=300000-", "bytes=600000-", "bytes=600001-"]
    assert all(headers["if-range"] == '"one"' for headers in unsteady.asked[1:])


def test_the_next_call_goes_on_where_the_last_one_gave_up(site: Site, unsteady: Unsteady) -> None:
    unsteady.drops = [500_000, 0, 0, 0, 0, 0]
    said = refused(download_image(unsteady.url, SHA256), "network")
    assert "broke off after 500000 bytes" in said
    assert incoming(site) == [f"{SHA256}.part", f"{SHA256}.part.json"]
    unsteady.asked.clear()
    assert fetched(download_image(unsteady.url, SHA256), site)["resumed_at"] == [500_000]
    assert unsteady.ranges == ["bytes=500000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, unsteady: Unsteady) -> None:
    old = b"x" * len(CONTENT)
    unsteady.content, unsteady.drops = old, [400_000]
    unsteady.changes[1] = (CONTENT, {"ETag": '"two"'})
    assert fetched(download_image(unsteady.url, SHA256), site)["resumed_at"] == []
    assert unsteady.ranges == ["", "bytes=400000-"]


def test_a_changed_file_whose_tag_lies_is_noticed_and_fetched_anew(
    site: Site, unsteady: Unsteady
) -> None:
    unsteady.content, unsteady.drops = b"x" * len(CONTENT), [400_000]
    unsteady.changes[1] = (CONTENT, {"ETag": '"one"'})
    assert fetched(download_image(unsteady.url, SHA256), site)["resumed_at"] == [400_000]
    assert unsteady.ranges == ["", "bytes=400000-", ""]


def test_a_date_serves_where_there_is_no_strong_tag(site: Site, unsteady: Unsteady) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    unsteady.headers, unsteady.drops = {"ETag": 'W/"weak"', "Last-Modified": date}, [1000]
    assert fetched(download_image(unsteady.url, SHA256), site)["resumed_at"] == [1000]
    assert unsteady.asked[1]["if-range"] == date


@pytest.mark.parametrize(
    ("headers", "knows_ranges"),
    [({}, True), ({"ETag": 'W/"weak"'}, True), ({"ETag": '"one"'}, False)],
)
def test_a_server_that_cannot_go_on_is_asked_for_all_of_it(
    site: Site, unsteady: Unsteady, headers: dict[str, str], knows_ranges: bool
) -> None:
    unsteady.headers, unsteady.knows_ranges, unsteady.drops = headers, knows_ranges, [1000, 2000]
    assert fetched(download_image(unsteady.url, SHA256), site)["resumed_at"] == []
    assert len(unsteady.asked) == 3


def test_a_part_that_is_the_whole_file_is_taken(site: Site, unsteady: Unsteady) -> None:
    unsteady.drops = [500_000, 0, 0, 0, 0, 0]
    refused(download_image(unsteady.url, SHA256), "network")
    (site.root / "incoming" / f"{SHA256}.part").write_bytes(CONTENT)
    fetched(download_image(unsteady.url, SHA256), site)
    assert unsteady.ranges[-1] == f"bytes={len(CONTENT)}-"


def test_a_part_that_is_longer_than_the_file_is_thrown_away(site: Site, unsteady: Unsteady) -> None:
    unsteady.drops = [500_000, 0, 0, 0, 0, 0]
    refused(download_image(unsteady.url, SHA256), "network")
    (site.root / "incoming" / f"{SHA256}.part").write_bytes(CONTENT + b"more")
    fetched(download_image(unsteady.url, SHA256), site)
    assert unsteady.ranges[-1] == ""


def test_a_part_of_another_address_is_not_gone_on_with(site: Site, unsteady: Unsteady) -> None:
    unsteady.drops = [500_000, 0, 0, 0, 0, 0]
    refused(download_image(unsteady.url, SHA256), "network")
    unsteady.asked.clear()
    fetched(download_image(unsteady.url + "?other", SHA256), site)
    assert unsteady.ranges == [""]


def test_trouble_of_the_server_is_endured(site: Site, unsteady: Unsteady) -> None:
    unsteady.statuses = [503, 429, 200]
    fetched(download_image(unsteady.url, SHA256), site)
    assert len(unsteady.asked) == 3


def test_another_sha256_is_refused_and_nothing_stays(site: Site, unsteady: Unsteady) -> None:
    said = refused(download_image(unsteady.url, "0" * 64), "image_changed")
    assert SHA256 in said
    assert incoming(site) == []


def test_a_server_that_looks_at_the_range_alone_does_not_make_one_file_of_two(
    site: Site, unsteady: Unsteady
) -> None:
    unsteady.content, unsteady.drops, unsteady.heeds_condition = (
        b"x" * len(CONTENT),
        [400_000],
        False,
    )
    unsteady.changes[1] = (CONTENT, {"ETag": '"two"'})
    assert fetched(download_image(unsteady.url, SHA256), site)["resumed_at"] == []
    assert unsteady.ranges == ["", "bytes=400000-", ""]


def test_a_disk_that_is_full_is_not_called_a_broken_connection(
    site: Site, unsteady: Unsteady, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: memoryview) -> int:
        if len(data) > 50_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    write = os.write
    monkeypatch.setattr(downloads.os, "write", full)
    said = refused(download_image(unsteady.url, SHA256), "disk_full")
    assert f"{SHA256}.part" in said
    assert len(unsteady.asked) == 1


def test_what_is_not_there_is_said_and_nothing_stays(site: Site, unsteady: Unsteady) -> None:
    unsteady.statuses = [404]
    assert "answered 404" in refused(download_image(unsteady.url, SHA256), "source_not_found")
    assert incoming(site) == []


def test_a_file_beyond_the_sites_limit_is_refused(site: Site, unsteady: Unsteady) -> None:
    site.set(payload_limit_bytes=1000)
    refused(download_image(unsteady.url, SHA256), "payload_refused")
    unsteady.says_length = False
    refused(download_image(unsteady.url, SHA256), "payload_refused")
    assert incoming(site) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x.sif",
        "https://127.0.0.1:1/x.sif",
        "https://169.254.169.254/x.sif",
        "file:///etc/passwd",
        "https://user:secret@example.org/x.sif",
        "--help",
    ],
)
def test_what_the_site_does_not_allow_is_not_asked(site: Site, url: str) -> None:
    refused(download_image(url, SHA256), "payload_refused")
    assert not (site.root / "incoming").exists()


@pytest.mark.parametrize("sha256", ["", "latest", "../x", "A" * 64])
def test_a_sum_is_needed(site: Site, unsteady: Unsteady, sha256: str) -> None:
    refused(download_image(unsteady.url, sha256), "illegal_name")


def test_what_was_fetched_and_not_registered_is_not_fetched_again(
    site: Site, unsteady: Unsteady
) -> None:
    fetched(download_image(unsteady.url, SHA256), site)
    fetched(download_image(unsteady.url, SHA256), site)
    assert len(unsteady.asked) == 1


def test_two_at_once_do_not_write_into_each_others_file(site: Site, unsteady: Unsteady) -> None:
    folder = str(site.root / "incoming")
    os.makedirs(folder)
    first = downloads.Download(folder, SHA256, "The image", 10**9)
    handle = os.open(first.part, os.O_RDWR | os.O_CREAT)
    first._lock(handle)
    assert "is being fetched here already" in refused(
        download_image(unsteady.url, SHA256), "in_use"
    )
    os.close(handle)
    fetched(download_image(unsteady.url, SHA256), site)


# -- from a registry ------------------------------------------------------------------------------


@pytest.fixture
def artifact(unsteady: Unsteady) -> str:
    unsteady.manifest = {"layers": [{"mediaType": SIF_LAYER, "digest": f"sha256:{SHA256}"}]}
    return f"oras://{unsteady.host}/lab/demo:v1"


def test_a_pull_goes_on_where_the_connection_broke(
    site: Site, unsteady: Unsteady, artifact: str
) -> None:
    unsteady.drops = [200_000, 300_000]
    result = fetched(pull_image(artifact, SHA256), site)
    assert result["resumed_at"] == [200_000, 500_000]
    assert result["reference"] == artifact


def test_a_tag_that_moved_is_noticed_before_anything_is_fetched(
    site: Site, unsteady: Unsteady, artifact: str
) -> None:
    refused(pull_image(artifact, "0" * 64), "image_changed")
    assert unsteady.asked == []


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        [],
        {"layers": []},
        {
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": f"sha256:{SHA256}",
                }
            ]
        },
        {"layers": [{"mediaType": SIF_LAYER, "digest": "sha256:../../x"}]},
        {"layers": [{"mediaType": SIF_LAYER, "digest": f"sha256:{SHA256}"}] * 2},
    ],
)
def test_what_is_no_sif_is_refused(
    site: Site, unsteady: Unsteady, artifact: str, manifest: Any
) -> None:
    unsteady.manifest = manifest
    refused(pull_image(artifact), "image_unreadable")
    assert unsteady.asked == []


def test_a_blob_that_is_not_its_digest_is_refused(
    site: Site, unsteady: Unsteady, artifact: str
) -> None:
    unsteady.content = b"something else"
    refused(pull_image(artifact), "image_changed")
    assert incoming(site) == []


# -- payloads -------------------------------------------------------------------------------------

Start = Callable[..., Run]


@pytest.fixture
def run(start: Start, unsteady: Unsteady) -> Run:
    return start(payload={"url": unsteady.url})


def payload_of(run: Run, unsteady: Unsteady) -> dict[str, Any]:
    result = fetch_payload(run.id, run.recipe_sha256)
    assert result["ok"], result
    assert (run.work / "payload" / "image.sif").read_bytes() == unsteady.content
    assert os.listdir(run.work) == ["payload"]
    return result


def test_a_payload_goes_on_where_the_connection_broke(run: Run, unsteady: Unsteady) -> None:
    unsteady.drops = [300_000, 300_000, 1]
    payload_of(run, unsteady)
    assert unsteady.ranges == ["", "bytes=300000-", "bytes=600000-", "bytes=600001-"]
    assert all(headers["if-range"] == '"one"' for headers in unsteady.asked[1:])


def test_a_payload_that_changed_meanwhile_is_fetched_anew(run: Run, unsteady: Unsteady) -> None:
    unsteady.drops = [400_000]
    unsteady.changes[1] = (b"another" * 100_000, {"ETag": '"two"'})
    payload_of(run, unsteady)
    assert unsteady.ranges == ["", "bytes=400000-"]


@pytest.mark.parametrize("changed", [{"ETag": '"two"'}, {"ETag": '"one"'}])
def test_a_payload_without_a_sum_is_not_made_of_two_files(
    run: Run, unsteady: Unsteady, changed: dict[str, str]
) -> None:
    """Its server looks at the range alone; a new tag, or another size, gives it away."""
    unsteady.drops, unsteady.heeds_condition = [400_000], False
    unsteady.changes[1] = (b"another" * 100_000, changed)
    payload_of(run, unsteady)
    assert unsteady.ranges == ["", "bytes=400000-", ""]


@pytest.mark.parametrize(
    ("headers", "knows_ranges"),
    [
        ({}, True),
        ({"ETag": 'W/"weak"'}, True),
        ({"Last-Modified": "Wed, 21 Oct 2099 07:28:00 GMT"}, True),
        ({"Last-Modified": "yesterday"}, True),
        ({"ETag": '"one"'}, False),
    ],
)
def test_a_payload_whose_server_cannot_go_on_is_fetched_anew(
    run: Run, unsteady: Unsteady, headers: dict[str, str], knows_ranges: bool
) -> None:
    unsteady.headers, unsteady.knows_ranges, unsteady.drops = headers, knows_ranges, [1000, 2000]
    payload_of(run, unsteady)
    assert len(unsteady.asked) == 3


def test_a_payload_made_of_two_files_that_say_to_be_one_is_fetched_anew(
    start: Start, unsteady: Unsteady
) -> None:
    run = start(payload={"url": unsteady.url, "sha256": SHA256})
    unsteady.content, unsteady.drops = b"x" * len(CONTENT), [400_000]
    unsteady.changes[1] = (CONTENT, {"ETag": '"one"'})
    payload_of(run, unsteady)
    assert unsteady.ranges == ["", "bytes=400000-", ""]


def test_a_payload_that_never_arrives_whole_is_a_network_failure(
    run: Run, unsteady: Unsteady
) -> None:
    unsteady.drops = [500_000, 0, 0, 0, 0, 0]
    said = refused(fetch_payload(run.id, run.recipe_sha256), "network")
    assert f"The payload {unsteady.url} broke off after 500000 bytes" in said


def test_a_server_in_trouble_is_asked_for_the_payload_again(run: Run, unsteady: Unsteady) -> None:
    unsteady.statuses = [503, 429, 200]
    payload_of(run, unsteady)
    unsteady.statuses = [503] * 9
    said = refused(fetch_payload(run.id, run.recipe_sha256), "network")
    assert said == f"The payload {unsteady.url} cannot be fetched: the server answered 503."


def test_a_host_that_does_not_exist_is_told_at_once(
    start: Start, unsteady: Unsteady, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cib_flows.functions.fetch_payload.open_url", None)  # is not tried
    run = start(payload={"url": "https://no-such-host.invalid/x"})
    said = refused(fetch_payload(run.id, run.recipe_sha256), "network")
    assert "The host no-such-host.invalid of the payload cannot be resolved" in said
