"""What cannot be an access rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cib_flows.local.database import Database
from cib_flows.local.transfer.access import AccessRules
from cib_flows.local.transfer.collections import Collection
from cib_flows.local.transfer.errors import TransferError

SOMEBODY = "1c3b1b8a-7a2a-4f0e-9a52-0a5a5f5d7c11"
GOOD = {"principal_type": "identity", "principal": SOMEBODY, "path": "/a/", "permissions": "r"}


@pytest.fixture
def rules() -> AccessRules:
    return AccessRules(Database(":memory:"))


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection("0e1f4a0e-2b7d-4c9b-8d0e-6a1c2b3d4e5f", "here", str(tmp_path))


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"path": "a/"}, 400, "path must be absolute"),
        ({"path": None}, 400, "path must be absolute"),
        ({"path": "/../a/"}, 403, "Path not allowed"),
        ({"permissions": "w"}, 400, "permissions must be 'r' or 'rw', not 'w'"),
        ({"principal_type": "user"}, 400, "principal_type must be one of identity, group"),
        ({"principal": "alice"}, 400, "UUID of the identity, not 'alice'"),
        ({"principal": f"urn:globus:auth:identity:{SOMEBODY}"}, 400, "UUID of the identity"),
        ({"principal": 5}, 400, "UUID of the identity, not 5"),
        ({"expiration_date": 5}, 400, "expiration_date"),
    ],
)
def test_a_bad_rule_is_refused_naming_the_field(
    rules: AccessRules, collection: Collection, changed: dict[str, Any], status: int, said: str
) -> None:
    with pytest.raises(TransferError) as refusal:
        rules.create(collection, {**GOOD, **changed})
    assert refusal.value.status == status
    assert said in refusal.value.message
    assert rules.list(collection)["DATA"] == []


def test_a_principal_has_one_rule_for_a_path(rules: AccessRules, collection: Collection) -> None:
    rules.create(collection, GOOD)
    rules.create(collection, {**GOOD, "path": "/b/"})
    with pytest.raises(TransferError) as refusal:
        rules.create(collection, {**GOOD, "permissions": "rw"})
    assert (refusal.value.status, refusal.value.code) == (409, "Exists")
    assert rules.list(collection)["length"] == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({**GOOD}, "operation must be CREATE, UPDATE or DELETE"),
        ({**GOOD, "operation": "create"}, "operation must be"),
        ({"operation": "DELETE"}, "rule_id is required to DELETE"),
        ({"operation": "UPDATE", "rule_id": "none", "permissions": "r"}, "no access rule none"),
    ],
)
def test_an_operation_that_is_none_is_refused(
    rules: AccessRules, collection: Collection, body: dict[str, Any], said: str
) -> None:
    with pytest.raises(TransferError, match=said):
        rules.manage(collection, body, begun=False, begin=lambda: None)
