"""Watching and stopping a run from outside."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cib_flows.functions.abort_build import abort_build
from cib_flows.functions.render_recipe import render_recipe
from cib_flows.functions.watch_build import watch_build
from tests.functions.conftest import Run, Server, Site

Start = Callable[..., Run]


def test_before_the_first_step_it_waits(site: Site, run_id: str) -> None:
    result = watch_build(run_id)
    assert (result["ok"], result["state"], result["log"], result["next_offset"]) == (
        True,
        "waiting",
        "",
        0,
    )


def test_between_two_steps_it_says_so(start: Start) -> None:
    result = watch_build(start().id)
    assert (result["state"], result["current_step"]) == ("between", "render_recipe")
    assert result["run_elapsed_s"] >= 0


def test_the_log_is_read_in_pieces_that_join(start: Start) -> None:
    run = start()
    text = "".join(f"line {n} é\n" for n in range(200))
    (run.folder / "build.log").write_text(text)
    seen, offset = "", 0
    while True:
        result = watch_build(run.id, offset)
        if result["next_offset"] == offset:
            break
        seen, offset = seen + result["log"], result["next_offset"]
    assert seen == text


def test_a_line_under_way_is_shown_once_it_is_whole(start: Start) -> None:
    run = start()
    log = run.folder / "build.log"
    log.write_text("whole\nha")
    first = watch_build(run.id)
    assert first["log"] == "whole\n"
    log.write_text("whole\nhalf\n")
    assert watch_build(run.id, first["next_offset"])["log"] == "half\n"


def test_a_reader_far_behind_sees_the_end(start: Start) -> None:
    run = start()
    (run.folder / "build.log").write_text("x\n" * 100_000 + "the end\n")
    result = watch_build(run.id)
    assert result["log"].endswith("the end\n")
    assert result["next_offset"] == 200_008


@pytest.mark.parametrize(
    "content",
    [b"\xff" * 5000, b"\x00" * 5000, "é".encode() * 5000, "漢\n".encode() * 3000, "😀".encode() * 3000],
    ids=["no text", "zeros", "two bytes", "three bytes", "four bytes"],
)  # fmt: skip
def test_any_log_fits_the_answer_and_is_read_to_its_end(start: Start, content: bytes) -> None:
    run = start()
    (run.folder / "build.log").write_bytes(content)
    offset = 0
    for _ in range(100):
        result = watch_build(run.id, offset)
        assert len(json.dumps(result)) < 8192
        if result["next_offset"] == offset:
            break
        offset = result["next_offset"]
    assert len(content) - offset < 3000


def test_a_terminal_is_not_told_what_to_do(start: Start) -> None:
    run = start()
    (run.folder / "build.log").write_text("\x1b[2J\x1b]0;title\x07red\x1b[0m\r\tx\u202e\n")
    assert not set(watch_build(run.id)["log"]) & set("\x1b\x07\r\u202e")


def test_a_log_that_began_anew_is_read_from_its_beginning(start: Start) -> None:
    run = start()
    (run.folder / "build.log").write_text("new\n")
    assert watch_build(run.id, 5000)["log"] == "new\n"


@pytest.mark.parametrize("offset", [-5, 10**12])
def test_an_offset_out_of_range_is_no_failure(start: Start, offset: int) -> None:
    assert watch_build(start().id, offset)["ok"] is True


@pytest.mark.parametrize("run_id", ["", "../../etc", "A" * 36, None, 5])
def test_a_run_id_that_is_none_is_refused(site: Site, run_id: str) -> None:
    for result in (watch_build(run_id), abort_build(run_id)):
        assert result["error"]["code"] == "run_not_found"


def test_an_abort_between_two_steps_cleans_up_at_once(start: Start) -> None:
    run = start()
    assert abort_build(run.id)["aborted"] is True
    assert not run.work.exists()
    assert watch_build(run.id)["state"] == "finished"


def test_an_abort_of_an_unknown_run_is_told(site: Site, run_id: str) -> None:
    assert abort_build(run_id)["error"]["code"] == "run_not_found"


def test_an_abort_after_a_failed_step_does_not_wait_for_one(
    site: Site, registry: Server, run_id: str
) -> None:
    spec = {"name": "demo", "base": {"image": "debian:missing"}, "worker": "none"}
    assert render_recipe(spec, run_id)["error"]["code"] == "base_not_found"
    abort_build(run_id)
    assert not (site.root / "work" / run_id).exists()
