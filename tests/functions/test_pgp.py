"""What Apptainer says of OpenPGP keys and signatures, as version 1.4.5 prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cib_flows.functions._shared.pgp import listed_keys, plain_fingerprint, sound_signers

LISTING = """Private key listing (/home/u/keys/pgp-secret):

0)  User:              one () <one@example.org>
    Creation time:     2026-11-20 11:50:02 +0000 UTC
    Fingerprint:       83A66771B085DB94E277FC7C5880E8026D624689
    Length (in bits):  4096

1)  User:              1)  Fingerprint: 192BFF93F28E4B269931FFE8C4E41F1865BA8538 () <x@example.org>
    Creation time:     2026-11-20 11:50:04 +0000 UTC
    Fingerprint:       A92BFF93F28E4B269931FFE8C4E41F1865BA8538
    Length (in bits):  4096
"""
GOOD = {"Fingerprint": "83A66771b085db94e277fc7c5880e8026d624689", "KeyCheck": True}


def test_keys_are_found_by_fingerprint_whatever_their_owners_are_called() -> None:
    assert listed_keys(LISTING) == {
        "83a66771b085db94e277fc7c5880e8026d624689": 0,
        "a92bff93f28e4b269931ffe8c4e41f1865ba8538": 1,
    }


@pytest.mark.parametrize(
    ("entries", "signers"),
    [
        ([{**GOOD, "DataCheck": True}], ["83a66771b085db94e277fc7c5880e8026d624689"]),
        ([{**GOOD, "DataCheck": False}], []),
        ([{**GOOD, "DataCheck": True}, {**GOOD, "DataCheck": False}], []),
        ([{**GOOD, "DataCheck": "true"}], []),
        (None, []),
        ([{}], []),
    ],
)
def test_only_signatures_that_all_hold_count(entries: Any, signers: list[str]) -> None:
    keys = [{"Signer": entry} for entry in entries] if entries is not None else None
    assert sound_signers(json.dumps({"Signatures": 1, "SignerKeys": keys}).encode()) == signers


def test_an_answer_that_is_none_has_no_signers() -> None:
    assert sound_signers(b"FATAL: what") == []


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (
            "pgp:83A6 6771 B085 DB94 E277  FC7C 5880 E802 6D62 4689",
            f"{GOOD['Fingerprint']}".lower(),
        ),
        ("A" * 64, "a" * 64),
        ("a" * 39, None),
        ("someone@example.org", None),
    ],
)
def test_fingerprints_are_compared_as_plain_digits(given: str, plain: str | None) -> None:
    assert plain_fingerprint(given) == plain
