"""What a user of Gladier writes. Run by its environment's own Python, with the provider's address.

Prints one JSON line: the run's status, the result, and what of the flow a second call made anew.
"""

# ruff: noqa: RUF012 - class attributes are how Gladier is told what to do

import functools
import json
import os
import sys

from gladier import GladierBaseClient, GladierBaseTool, generate_flow_definition


def add_numbers(a=0, b=0, **rest):
    """Adds."""
    return {"sum": a + b}


@generate_flow_definition
class Adding(GladierBaseTool):
    action_url = sys.argv[1] if len(sys.argv) > 1 else None
    flow_input = {}
    required_input = ["a", "b", "compute_endpoint"]
    compute_functions = [add_numbers]


@generate_flow_definition
class AddingClient(GladierBaseClient):
    gladier_tools = [Adding]


def once():
    client = AddingClient()
    endpoint = os.environ["CIB_FLOWS_BUILD_ENDPOINT"]
    body = {"input": {"a": 2, "b": 3, "compute_endpoint": endpoint}}
    run_id = client.run_flow(body, label="From Gladier")["run_id"]
    client.progress(run_id, callback=lambda status: None)
    url = client.flow_definition["States"]["AddNumbers"]["ActionUrl"]
    return {
        "url": url,
        "status": client.get_status(run_id)["status"],
        "result": client.get_details(run_id, "AddNumbers")["details"]["result"],
        "flow_id": client.flows_manager.get_flow_id(),
    }


made = set()


def note(name, method):
    @functools.wraps(method)
    def call(*arguments, **named):
        answer = method(*arguments, **named)
        made.add(name)
        return answer

    setattr(GladierBaseClient, name, call)


for name in ("run_flow", "progress", "get_status", "get_details"):
    note(name, getattr(GladierBaseClient, name))

answers = [once(), once()]
print(json.dumps([*answers, sorted(made)]))
