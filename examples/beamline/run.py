"""Deploy the beamline flow and start a run of it: on globus.org, or on the local Globus.

python run.py --frames COLLECTION:/PATH --scratch COLLECTION:/PATH --scratch-folder /FOLDER \
    --results COLLECTION:/PATH

COLLECTION is a collection's UUID. Doing it again starts another run; function and flow are
registered anew only when they have changed. See README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from cib_flows import ContainerSpec
from cib_flows.deployment import ensure_deployed
from cib_flows.deployment_record import Deployment
from cib_flows.errors import CibFlowsError
from cib_flows.files import write_whole
from cib_flows.flow import compose
from cib_flows.flow_files import read_flow
from cib_flows.flow_parts import flow_part
from cib_flows.profiles import Globus, connect
from cib_flows.progress import pause_after
from cib_flows.services import explained

HERE = Path(__file__).resolve().parent
TITLE = "Reduce detector frames in a container"


def collection(text: str) -> dict[str, str]:
    """``UUID:/PATH`` as the flow takes it."""
    identifier, _, path = text.partition(":")
    try:
        uuid.UUID(identifier)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not begin with a collection's UUID"
        ) from None
    if not path.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} has no path such as :/frames/ after the UUID")
    return {"id": identifier, "path": path}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=collection, required=True, metavar="UUID:/PATH")
    parser.add_argument("--scratch", type=collection, required=True, metavar="UUID:/PATH")
    parser.add_argument("--scratch-folder", required=True, help="the same, as the nodes see it")
    parser.add_argument("--results", type=collection, required=True, metavar="UUID:/PATH")
    parser.add_argument("--centre", type=float, nargs=2, default=(127.3, 128.6))
    parser.add_argument("--container", default=str(HERE / "container.yaml"), help="spec to run in")
    parser.add_argument("--mapped", action="append", default=[], metavar="UUID",
                        help="mapped collection whose data_access consent is needed")  # fmt: skip
    parser.add_argument("--profile", choices=["local", "globus"])
    parser.add_argument("--home", help="folder of a local Globus")
    parser.add_argument("--json", action="store_true", help="print what came out as JSON")
    options = parser.parse_args()
    try:
        return run(options)
    except CibFlowsError as problem:
        print(f"Error: {problem.message}", file=sys.stderr)
        print(f"Hint: {problem.hint}" if problem.hint else "", file=sys.stderr)
        return problem.exit_code


def run(options: argparse.Namespace) -> int:
    say("reading the container's spec")
    spec = ContainerSpec.from_file(options.container)
    globus = connect(options.profile, options.home)
    deployment = ensure_deployed(globus, say)
    memory = globus.record_path.with_name(f"{globus.record_path.stem}-beamline.json")
    known: dict[str, str] = json.loads(memory.read_text()) if memory.exists() else {}
    known |= register_analysis(globus, known)
    known |= deploy_flow(globus, deployment, known)
    write_whole(memory, json.dumps(known, indent=2) + "\n")

    body = {
        "frames": options.frames,
        "scratch": options.scratch,
        "scratch_folder": options.scratch_folder,
        "results": options.results,
        "centre": list(options.centre),
        "function": known["function"],
        "container_spec": spec.to_dict(),
    }
    with explained("start the run"):
        client = globus.flow(known["flow"], options.mapped)
        run_id = str(client.run_flow(body, label="beamline")["run_id"])
    say(f"started run {run_id}")
    ended = wait(globus, run_id)
    if ended["status"] != "SUCCEEDED":
        say(f"the run failed: {ended['details'].get('cause') or ended['details']}")
        return 1
    done = ended["details"]["output"]["done"]
    if options.json:
        print(json.dumps({"run_id": run_id, **done}))
        return 0
    analysis = done["analysis"]
    was = "was there already" if done["container_was_there"] else "was built"
    print(f"container  {done['container_id']} ({was})")
    print(f"frames     {analysis['frames']}")
    print(f"rings      {', '.join(f'{radius:.2f}' for radius in analysis['radii_px'])} pixels")
    print(f"results    {done['results']} on {options.results['id']}")
    return 0


def register_analysis(globus: Globus, known: dict[str, str]) -> dict[str, str]:
    """The analysis as a Globus Compute function, registered anew when its text has changed."""
    text = (HERE / "reduce.py").read_text()
    digest = hashlib.sha256(text.encode()).hexdigest()
    if known.get("function_sha256") == digest:
        return {}
    with explained("register the analysis"):
        answer = globus.compute.register_function(
            {"function_name": "reduce_frames", "function_code": text, "serialized": False}
        )
    say("registered the analysis")
    return {"function": str(answer["function_uuid"]), "function_sha256": digest}


def deploy_flow(globus: Globus, deployment: Deployment, known: dict[str, str]) -> dict[str, str]:
    """The flow with the build's states in it, created once and updated when it has changed."""
    host, schema = read_flow(HERE / "definition.json")
    larger = compose(
        host, flow_part(deployment), before="Reduce", schema=schema, on_failure="Explain"
    )
    whole: dict[str, Any] = {
        "title": TITLE,
        "definition": larger.definition,
        "input_schema": larger.input_schema,
    }
    digest = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
    if known.get("flow_sha256") == digest:
        return {}
    if "flow" in known:
        with explained("update the flow"):
            globus.flows.update_flow(known["flow"], **whole)
        say("updated the flow")
        return {"flow_sha256": digest}
    with explained("create the flow"):
        flow = str(globus.flows.create_flow(**whole)["id"])
    say(f"created the flow {flow}")
    return {"flow": flow, "flow_sha256": digest}


def wait(globus: Globus, run_id: str) -> dict[str, Any]:
    """The run once it has ended; says each state that it comes to."""
    told = 0
    started = time.monotonic()
    while True:
        with explained("look up the run"):
            found = dict(globus.flows.get_run(run_id).data)
            entries = list(globus.flows.paginated.get_run_logs(run_id, limit=100).items())
        for entry in entries[told:]:
            if entry["code"] in ("ActionStarted", "FlowInactive"):
                say(f"  {entry['details'].get('state_name') or entry['description']}")
        told = len(entries)
        if found["status"] in ("SUCCEEDED", "FAILED", "ENDED"):
            return found
        time.sleep(pause_after(time.monotonic() - started))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
