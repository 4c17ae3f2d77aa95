"""What a run shows in its own folder: the page, the outcome, and a line for every step."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cib_flows.functions._shared.files import write_json
from cib_flows.functions._shared.run_folder import RunFolder
from cib_flows.functions._shared.status_page import notification, status_page
from cib_flows.functions.abort_build import abort_build
from cib_flows.functions.report_failure import report_failure
from tests.functions.conftest import Site

STATUS: dict[str, Any] = {
    "state": "running",
    "current_step": "build_image",
    "phase": "pip",
    "percent": 45,
    "started_at": 1000.0,
    "heartbeat_at": 1100.0,
}


class Reader(HTMLParser):
    """The tags of a page and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts = ""
        self.refreshes = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refreshes = self.refreshes or ("http-equiv", "refresh") in attrs

    def handle_data(self, data: str) -> None:
        self.texts += data


TAGS = Reader(status_page(STATUS, "", 1100.0)).tags


@pytest.fixture
def folder(site: Site, run_id: str) -> RunFolder:
    made = RunFolder(str(site.root), run_id)
    made.create()
    return made


def read(folder: RunFolder, name: str) -> str:
    return Path(folder.path, name).read_text()


def test_the_page_says_step_percent_time_and_the_logs_end() -> None:
    page = Reader(status_page(STATUS, "old\n" * 5000 + "Collecting numpy\n", 1161.5))
    assert "build_image: pip" in page.texts
    assert "45 %, 2 min 41 s since the run began." in page.texts
    assert "Collecting numpy" in page.texts
    assert page.refreshes
    assert not Reader(status_page({**STATUS, "state": "finished"}, "", 1161.5)).refreshes


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60).map(lambda text: f"<script>alert(1)</script>{text}<img src=x>&"))
def test_nothing_that_a_build_prints_becomes_part_of_the_page(log: str) -> None:
    page = status_page(STATUS, log, 1100.0)
    assert Reader(page).tags == TAGS
    assert "\x1b" not in page
    assert "://" not in status_page(STATUS, "", 1100.0), "the page needs nothing but itself"


def test_result_is_unset_until_the_run_is_over(folder: RunFolder) -> None:
    assert read(folder, "result.txt") == "UNSET\n"
    folder.set_status("running", "build_image", "pip", 45)
    assert read(folder, "result.txt") == "UNSET\n"
    folder.set_status("finished", "register_container", "registered", 100, "registered 1234 /x.sif")
    assert read(folder, "result.txt") == "registered 1234 /x.sif\n"


def test_a_line_is_added_when_the_run_comes_to_another_step_or_phase(folder: RunFolder) -> None:
    for step, phase in (("render_recipe", ""), ("build_image", "apt"), ("build_image", "pip")):
        for _ in range(3):
            folder.set_status("running", step, phase, 20)
    lines = read(folder, "notifications.txt").splitlines()
    assert [line.split(" % ")[1] for line in lines] == [
        "running render_recipe",
        "running build_image apt",
        "running build_image pip",
    ]


def test_the_time_in_a_line_is_utc() -> None:
    assert notification(STATUS, 0.0) == "1970-01-01T00:00:00Z 45 % running build_image pip\n"


def test_a_failure_is_the_outcome(folder: RunFolder) -> None:
    write_json(folder.status, STATUS)
    failed = report_failure(folder.run_id, caught=None, transfer=None, outputs=[])
    assert read(folder, "result.txt") == f"failed: {failed['sentence']}\n"


def test_an_abort_is_the_outcome(folder: RunFolder) -> None:
    folder.set_status("between", "render_recipe")
    abort_build(folder.run_id)
    assert read(folder, "result.txt") == "aborted\n"


def test_a_folder_that_takes_no_page_stops_no_build(folder: RunFolder) -> None:
    Path(folder.path, "notifications.txt").mkdir()
    Path(folder.path, "status.html").mkdir()
    folder.set_status("running", "build_image", "pip", 45)
    assert folder.read("status.json")["phase"] == "pip"
