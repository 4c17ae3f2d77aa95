"""What a user of Gladier writes to build a container and run a function in it. Run by its
environment's own Python, with a spec in JSON; prints one JSON line."""

# ruff: noqa: RUF012 - class attributes are how Gladier is told what to do

import json
import sys

from gladier import GladierBaseClient, GladierBaseTool, generate_flow_definition

spec = json.loads(sys.argv[1])


def where_am_i(word="", **rest):
    """Says which image it runs in."""
    import os
    import platform

    image = os.environ.get("APPTAINER_CONTAINER", "")
    return {"image": image, "word": word, "python": platform.python_version()}


@generate_flow_definition(
    modifiers={
        "where_am_i": {
            "endpoint_id": "$.container.executor.endpoint_id",
            "user_endpoint_config": "$.container.executor.user_endpoint_config",
        }
    }
)
class WhereAmI(GladierBaseTool):
    action_url = "https://compute.actions.globus.org/v3"
    required_input = ["word"]
    compute_functions = [where_am_i]


@generate_flow_definition
class InContainer(GladierBaseClient):
    gladier_tools = ["cib_flows.gladier.BuildContainer", WhereAmI]


def once():
    client = InContainer()
    body = {"input": {"container_spec": spec, "word": "hello"}}
    run_id = client.run_flow(body, label="From Gladier")["run_id"]
    client.progress(run_id, callback=lambda status: None)
    status = client.get_status(run_id)
    answer = {"status": status["status"], "flow_id": client.flows_manager.get_flow_id()}
    if status["status"] == "SUCCEEDED":
        output = status["details"]["output"]
        answer["container"] = output["container"]
        answer["result"] = output["WhereAmI"]["details"]["result"][0]
    else:
        answer["cause"] = status["details"].get("cause")
    return answer


if spec:
    print(json.dumps([once(), once()]))
else:
    try:
        InContainer().run_flow({"input": {"word": "hello"}})
    except Exception as refusal:
        print(json.dumps(str(refusal)))
