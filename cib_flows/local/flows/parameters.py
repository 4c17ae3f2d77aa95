"""``Parameters``: an object built from the run's document, with ``.$`` paths and ``.=`` expressions
at any depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cib_flows.flow.language import PRIVATE_PARAMETERS, bare

from . import expressions, paths

__all__ = ["SECRET_KEYS", "build", "uses_expressions", "without_private"]

# Role tokens travel in the run's input under this key.
SECRET_KEYS = frozenset({"_tokens"})
PRIVATE_PREFIX = "_private"


def build(template: Any, document: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
    """The value of ``template`` twice: as the state uses it, and as logs and viewers may see it.

    :raises StateError: a path that matches nothing, or an expression that cannot be evaluated
    """
    if isinstance(template, list):
        pairs = [build(item, document, context) for item in template]
        return [value for value, _ in pairs], [shown for _, shown in pairs]
    if not isinstance(template, dict):
        return template, template
    private = {bare(name) for name in template.get(PRIVATE_PARAMETERS, ())}
    used: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for key, item in template.items():
        if key == PRIVATE_PARAMETERS:
            continue
        name = bare(key)
        if key.endswith(".$"):
            value = paths.read(item, document, context)
            visible = without_private(value)
        elif key.endswith(".="):
            value = expressions.evaluate(item, document, context)
            visible = without_private(value)
        else:
            value, visible = build(item, document, context)
        used[name] = value
        if name not in private and not _is_private(name):
            shown[name] = visible
    return used, shown


def uses_expressions(template: Any) -> bool:
    """Whether an expression stands anywhere in ``template``."""
    if isinstance(template, list):
        return any(uses_expressions(item) for item in template)
    if isinstance(template, dict):
        return any(key.endswith(".=") or uses_expressions(item) for key, item in template.items())
    return False


def _is_private(key: str) -> bool:
    return key.startswith(PRIVATE_PREFIX) or key in SECRET_KEYS


def without_private(value: Any) -> Any:
    """``value`` as logs and viewers may see it: keys that begin with ``_private`` are left out at
    any depth."""
    if isinstance(value, dict):
        return {key: without_private(item) for key, item in value.items() if not _is_private(key)}
    if isinstance(value, list):
        return [without_private(item) for item in value]
    return value
