"""What is left, swept and told after a publication."""

from __future__ import annotations

import os
import uuid
from typing import Any

import pytest

from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions.drop_delivery import drop_delivery
from cib_flows.functions.end_publication import end_publication
from cib_flows.functions.expect_container import expect_container
from cib_flows.functions.offer_container import offer_container
from cib_flows.functions.report_delivery import report_delivery

from .deliveries import (
    DESTINATION,
    Sites,
    made,
    ok,
    refused,
    sites,
)

__all__ = ["made", "sites"]  # fixtures


def test_a_delivery_is_dropped_and_the_offer_beside_it_stays(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    """Source and destination may be one site."""
    offer = ok(offer_container(run_id, "demo:v1"))
    root = sites.folder / "here" / "root"
    ok(expect_container(run_id, offer, DESTINATION, "other:v1"))
    assert any("delivery-" in name for name in sites.staged("here"))
    assert ok(drop_delivery(run_id))["cleaned"]
    left = sites.staged("here")
    assert any("offer-" in name for name in left)
    assert not any("delivery-" in name for name in left)
    assert ok(drop_delivery(run_id, True))["cleaned"]
    assert sites.staged("here") == []
    assert Catalogue(str(root)).find("demo:v1")


def test_what_a_cancelled_run_left_is_swept_after_two_weeks(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there")
    ok(expect_container(run_id, offer, DESTINATION))
    (old,) = (sites.folder / "there" / "staging").glob("*/*")
    os.utime(old, (1, 1))
    later = str(uuid.uuid4())
    ok(expect_container(later, offer, DESTINATION))
    assert all(later in name for name in sites.staged("there"))


def test_a_step_that_is_under_way_when_the_run_is_cancelled_leaves_nothing(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    assert ok(drop_delivery(run_id, True))["cleaned"]
    refused(offer_container(run_id, "demo:v1"), "aborted")
    assert sites.staged("here") == []
    sites.at("there")
    assert ok(drop_delivery(run_id, True))["cleaned"]
    refused(expect_container(run_id, offer, DESTINATION), "aborted")
    assert sites.staged("there") == []


TIMEOUT = {"Error": "ActionTimeout", "Cause": "…"}


NEVER_ASKED = {"step": "expect_container", "output": None}


NOT_TRUSTED = {"ok": False, "error": {"code": "not_trusted", "message": "No."}}


FAILED_TASK = {
    "status": "FAILED",
    "details": {"fatal_error": {"description": "No such collection"}},
}


EXPECTED = {"step": "expect_container", "output": {"ok": True, "present": False}}


NOTHING = {"step": "receive_container", "output": None}


@pytest.mark.parametrize(
    ("caught", "transfer", "outputs", "step", "said"),
    [
        (TIMEOUT, None, [NEVER_ASKED, NOTHING], "expect_container", "not finish within"),
        (None, FAILED_TASK, [EXPECTED, NOTHING], "transfer_image", "could not be transferred: No such collection"),
        (TIMEOUT, {"status": "SUCCEEDED"}, [EXPECTED, NOTHING], "receive_container", "not be registered: the step"),
        (TIMEOUT, None, [EXPECTED, NOTHING], "transfer_image", "could not be transferred: the step"),
        (
            None,
            {"status": "SUCCEEDED"},
            [EXPECTED, {"step": "receive_container", "output": NOT_TRUSTED}],
            "receive_container",
            "No.",
        ),
    ],
)  # fmt: skip
def test_why_a_destination_failed_is_one_sentence(
    run_id: str, caught: Any, transfer: Any, outputs: Any, step: str, said: str
) -> None:
    report = ok(report_delivery(run_id, caught, transfer, outputs))
    assert report["failed_step"] == step
    assert said in report["sentence"]
    assert "\n" not in report["sentence"]


def test_the_last_sentence_names_every_destination_that_failed(sites: Sites, run_id: str) -> None:
    outcomes = [
        {"name": "delta", "ok": True},
        {"name": "polaris", "ok": False, "sentence": "The disk is full."},
        {"name": "aurora", "ok": False, "sentence": "It is down."},
    ]
    ended = ok(end_publication(run_id, outcomes))
    assert ended["sentence"] == (
        "The container could not be published to polaris (The disk is full), aurora (It is down); "
        "it is registered at one destination."
    )
    assert (ended["failed"], ended["registered"]) == (2, 1)


def test_the_longest_sentence_fits(sites: Sites, run_id: str) -> None:
    outcomes = [{"name": "n" * 200, "ok": False, "sentence": "ß" * 3000} for _ in range(11)]
    assert len(ok(end_publication(run_id, outcomes))["sentence"]) < 1000


def test_a_source_that_refuses_is_told_as_it_was_said(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offered = offer_container(run_id, "nothing:v1")
    ended = ok(end_publication(run_id, [], None, offered))
    assert ended["sentence"] == "No container 'nothing:v1' is registered on this endpoint."
    assert ended["error"]["code"] == "container_not_found"
