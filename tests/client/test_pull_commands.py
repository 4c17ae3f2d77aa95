"""``containers pull``: from a registry or from an https address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .test_catalogue_commands import CONTAINER, Asked, containers
from .test_catalogue_commands import endpoint as endpoint  # a fixture

SHA256 = "a" * 64
ANSWER = {**CONTAINER, "sha256": SHA256, "path": "/root/incoming/x.sif"}


@pytest.mark.parametrize(
    ("address", "function", "question"),
    [
        ("oras://ghcr.io/lab/demo:v1", "pull_image", {"reference": "oras://ghcr.io/lab/demo:v1"}),
        ("https://example.org/demo.sif", "download_image", {"url": "https://example.org/demo.sif"}),
    ],
)
def test_what_was_fetched_is_registered_with_its_sum(
    endpoint: Callable[..., Asked], address: str, function: str, question: dict[str, str]
) -> None:
    asked = endpoint(ANSWER)
    answer = containers("pull", address, "demo:v1", "--sha256", SHA256)
    assert answer.exit_code == 0, answer.output
    (fetched, arguments, _), (registered, given, _) = asked
    assert (fetched, registered) == (function, "register_image")
    assert arguments == {**question, "sha256": SHA256}
    assert (given["path"], given["sha256"]) == (ANSWER["path"], SHA256)


def test_a_download_without_a_sum_is_refused_before_anything_is_asked(
    endpoint: Callable[..., Asked],
) -> None:
    asked = endpoint(ANSWER)
    answer = containers("pull", "https://example.org/demo.sif", "demo:v1")
    assert answer.exit_code == 2
    assert "needs the sha256" in answer.stderr
    assert asked == []
