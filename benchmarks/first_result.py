"""From submitting a function to its result: in a fresh image, afterwards, and without a container.

    python benchmarks/first_result.py --home HOME [--rounds 5] [--calls 20] [--json OUT]

Each round builds an image that no worker has run yet, stops and starts the local Globus, so that no endpoint
process is left, and calls the same function through the endpoint's own ``GlobusComputeEngine``, on the host and
in the image. The image's file is read once before, as after a build.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cib_flows.profiles import connect
from cib_flows.services import Pacer
from cib_flows.tasks import start_call

SOURCE = "def answer(n):\n    return {'twice': 2 * n}\n"
POLL_S = 0.02


def cli(home: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-c", "from cib_flows.cli import main; main()", *words]
    done = subprocess.run(
        [*command, "--home", str(home), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr + done.stdout)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def called(globus: Any, function: str, how: dict[str, Any], number: int) -> float:
    """Seconds from the submission to the result."""
    begun = time.perf_counter()
    call = start_call(
        globus, "answer", function, how["endpoint_id"], how["user_endpoint_config"], {"n": number}
    )
    while (result := call.result()) is None:
        time.sleep(POLL_S)
    assert result == {"twice": 2 * number}
    return time.perf_counter() - begun


def one_round(home: Path, number: int, calls: int) -> dict[str, Any]:
    spec = home.parent / "first-result.json"
    spec.write_text(
        json.dumps(
            {
                "name": "first-result",
                "base": {"image": "python:3.11-slim"},
                "environment": {"ROUND": f"{number} of {time.time_ns()}"},
            }
        )
    )
    made = cli(home, "build", str(spec))
    for verb in ("stop", "start"):
        cli(home, "local", verb)
    # the local Globus has no limit of calls in a time; ours would be what is measured
    globus = replace(connect("local", str(home)), compute_pacer=Pacer(10**6))
    registered = globus.compute.register_function(
        {"function_name": "answer", "function_code": SOURCE, "serialized": False}
    )
    function = str(registered["function_uuid"])
    in_image = made["executor"]
    on_host = {**in_image, "user_endpoint_config": {}}
    figures: dict[str, Any] = {"bytes": made["bytes"]}
    places = [("host", on_host), ("image", in_image)]
    # who comes first also waits for the service to have started wholly: they take turns
    for place, how in places if number % 2 == 0 else reversed(places):
        figures[f"{place}, first"] = called(globus, function, how, 0)
        figures[f"{place}, later"] = [called(globus, function, how, n) for n in range(calls)]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rounds = [one_round(asked.home, number, asked.calls) for number in range(asked.rounds)]
    print(f"seconds, median (least to most); image of {rounds[0]['bytes'] / 1e6:.0f} MB")
    for key in ("host, first", "image, first", "host, later", "image, later"):
        values = [found[key] for found in rounds]
        if isinstance(values[0], list):
            values = [value for found in values for value in found]
        middle = statistics.median(values)
        print(f"  {key:15s}{middle:8.3f}  ({min(values):.3f} to {max(values):.3f})")
    print(f"load average {os.getloadavg()}")
    if asked.json:
        asked.json.write_text(json.dumps(rounds, indent=2) + "\n")


if __name__ == "__main__":
    main()
