"""What the linter knows about action providers: addresses that ended, and inputs that changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from .findings import Remark, remark
from .language import bare
from .problems import Place

__all__ = ["provider_remarks", "provider_url"]

COMPUTE = "https://compute.actions.globus.org"
TRANSFER = "https://transfer.actions.globus.org"

# The Transfer providers that stood below /transfer/ of older hosts, and where they are now.
_TRANSFER_MOVED = {
    "transfer": "transfer",
    "delete": "delete",
    "ls": "ls",
    "mkdir": "mkdir",
    "collection_info": "collection_info",
    "set_permission": "manage_permission",
}
_OLD_HOSTS = ("actions.globus.org", "actions.automate.globus.org")

# Where flows answer that are called as actions.
FLOW_HOSTS = ("flows.globus.org", "flows.automate.globus.org")
FLOW_PATH = re.compile(r"flows/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# Fields of the first version of a provider's input, and what they are called now.
_TRANSFER_FIELDS = {
    "transfer_items": "DATA",
    "source_endpoint_id": "source_endpoint",
    "destination_endpoint_id": "destination_endpoint",
}
_RENAMED: dict[str, dict[str, str]] = {
    "transfer": _TRANSFER_FIELDS,
    "delete": {"endpoint_id": "endpoint", "items": "DATA"},
}


def provider_url(state: Mapping[str, Any]) -> str:
    """The provider's address; empty for one that is not given as an address."""
    handler = state.get("Handler")
    url = handler.get("Url") if isinstance(handler, dict) else state.get("ActionUrl")
    return url if isinstance(url, str) else ""


def provider_remarks(state: Mapping[str, Any], place: Place) -> Iterator[Remark]:
    """What is wrong with the provider of an Action state, and with what it is given."""
    url = provider_url(state)
    parts = urlsplit(url)
    host, path = (parts.hostname or "").lower(), parts.path.strip("/")
    field = (*place, "ActionUrl") if "ActionUrl" in state else (*place, "Handler", "Url")
    template = state.get("Parameters")
    given = (
        {bare(key): key for key in template if isinstance(key, str)}
        if isinstance(template, dict)
        else {}
    )
    replacement = _replacement(host, path)
    if replacement is not None:
        yield remark(
            "retired-url",
            field,
            f"The provider at {url} is not documented any more."
            if path == "fxap"
            else f"The provider at {url} was retired.",
            f"Use {replacement}; its input has other field names than the old one's."
            if replacement.startswith(TRANSFER)
            else f"Use {replacement}.",
        )
    yield from _transfer_fields(host, path, given, (*place, "Parameters"))
    if host == "compute.actions.globus.org" and path != "v3":
        if replacement is None:
            yield remark(
                "compute-v2",
                field,
                "This is version 2 of the Compute provider.",
                f"Use {COMPUTE}/v3, with endpoint_id and tasks of function_id, args and kwargs.",
            )
    elif host == "compute.actions.globus.org":
        yield from _compute_fields(template, given, (*place, "Parameters"))
    if host in FLOW_HOSTS:
        yield _flow_remark(url, path, given, field)
    unbounded = given and not {"limit", "filter"} & set(given)
    if host == "transfer.actions.globus.org" and path == "ls" and unbounded:
        yield remark(
            "state-may-grow",
            (*place, "Parameters"),
            "The listing of a large folder does not fit in a run's state of 200 KB.",
            "Give a limit, or a filter.",
        )


def _flow_remark(url: str, path: str, given: Mapping[str, str], place: Place) -> Remark:
    if not FLOW_PATH.fullmatch(path):
        return remark(
            "flow-as-action",
            place,
            f"{url} is not the address of a flow.",
            "A flow's address is https://flows.globus.org/flows/ and its UUID.",
        )
    if set(given) - {"label", "tags"} == {"body"}:
        return remark(
            "flow-as-action",
            place,
            "Whether a flow that is called as an action takes its input below 'body' is not"
            " documented.",
            "Give the input itself as Parameters, or insert the flow's states instead, as 'cib-flows"
            " flow compose' does.",
        )
    return remark(
        "flow-as-action",
        place,
        "How a flow that is called as an action gets its input is not documented.",
        "Try it with a small run first, or insert the flow's states instead, as 'cib-flows flow"
        " compose' does.",
    )


def _replacement(host: str, path: str) -> str | None:
    if host in _OLD_HOSTS and path.startswith("transfer/"):
        name = path.removeprefix("transfer/")
        return f"{TRANSFER}/{_TRANSFER_MOVED.get(name, name)}"
    if host == "compute.actions.globus.org" and path == "fxap":
        return f"{COMPUTE}/v3"
    if host.endswith("funcx.org") or (host == "actions.automate.globus.org" and "funcx" in path):
        return f"{COMPUTE}/v3"
    if host == "actions.automate.globus.org":
        return f"https://actions.globus.org/{path}"
    return None


def _transfer_fields(
    host: str, path: str, given: Mapping[str, str], place: Place
) -> Iterator[Remark]:
    if host != "transfer.actions.globus.org" and not path.startswith("transfer/"):
        return
    for old, new in _RENAMED.get(path.removeprefix("transfer/"), {}).items():
        if old in given:
            yield remark(
                "renamed-input",
                (*place, given[old]),
                f"{old!r} is a field of the retired provider's input.",
                f"The provider at {TRANSFER} calls it {new!r}.",
            )


def _compute_fields(template: Any, given: Mapping[str, str], place: Place) -> Iterator[Remark]:
    for old, new in (("endpoint", "endpoint_id"), ("function", "function_id in tasks")):
        if old in given:
            yield remark(
                "renamed-input",
                (*place, given[old]),
                f"{old!r} is a field of version 2 of the Compute provider.",
                f"Version 3 calls it {new}.",
            )
    for name in ("endpoint_id", "tasks"):
        if given and name not in given and "endpoint" not in given:
            yield remark(
                "missing-input",
                place,
                f"The Compute provider needs {name!r}.",
                "Give endpoint_id, and tasks as a list of function_id with args or kwargs.",
            )
    tasks = template.get("tasks") if isinstance(template, dict) else None
    if isinstance(tasks, list) and len(tasks) > 1:
        yield remark(
            "several-tasks",
            (*place, "tasks"),
            f"The action fails only when all of its {len(tasks)} tasks fail; what a failed one"
            " leaves is the text of its traceback.",
            "Use one task per Action, or check every result in a Choice.",
        )
    for number, task in enumerate(tasks if isinstance(tasks, list) else ()):
        names = {bare(key) for key in task} if isinstance(task, dict) else {"function_id"}
        if "function_id" not in names:
            yield remark(
                "missing-input",
                (*place, "tasks", number),
                "A task of the Compute provider needs 'function_id'.",
                "Give the function's UUID, with args or kwargs beside it.",
            )
