"""One thing that the service would refuse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Place", "Problem", "unknown_fields", "wrong_type"]

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """``place`` is where it stands, as names and indices from the request's body; ``kind`` is the
    service's type of error, ``code`` the linter's name for it."""

    place: Place
    message: str
    kind: str = "value_error"
    code: str = "invalid-value"

    def document(self) -> dict[str, Any]:
        """As the service writes it in a 422 answer."""
        return {"loc": list(self.place), "msg": self.message, "type": self.kind}


def wrong_type(place: Place, expected: str) -> Problem:
    """For a value that is not the ``dict`` or ``list`` it should be."""
    message = f"value is not a valid {expected}"
    return Problem(place, message, f"type_error.{expected}", "wrong-type")


def unknown_fields(
    holder: Mapping[str, Any], known: Collection[str], place: Place
) -> Iterator[Problem]:
    """A problem for every field of ``holder`` that is not ``known``."""
    for key in holder:
        if key not in known:
            yield Problem(
                (*place, key), "extra fields not permitted", "value_error.extra", "unknown-field"
            )
