"""What the local Globus costs: start, idling, each transition, memory, and many runs at once.

    python benchmarks/local_globus.py [--runs 1,10,50,200,500,1000] [--json FILE]

Runs are of five states: Pass, a Compute task on a real process pool, Choice, a Search action, Pass. Every
run's log is compared, entry by entry, with what it must be. The home is a temporary folder; the clients
run in this process, on the same processors as the server.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cib_flows.local import control
from cib_flows.local.home import Home

CLIENTS = 8
IDLE_S = 20.0
CHAIN = 50
COMPUTE = "https://compute.actions.globus.org/v3"
SEARCH = "https://actions.globus.org/search/ingest"


class Server:
    """A running home, spoken to with plain HTTP."""

    def __init__(self, home: Home) -> None:
        self.home = home
        record = home.running()
        assert record is not None
        assert record.pid is not None
        self.url, self.pid = record.url, record.pid
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {home.token()}"
        self.session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CLIENTS))

    def get(self, path: str) -> Any:
        answer = self.session.get(self.url + path, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        answer = self.session.post(self.url + path, json=body, timeout=60)
        if not answer.ok:
            raise RuntimeError(f"{path}: {answer.text}")
        return answer.json()

    def flow(self, states: dict[str, Any]) -> str:
        definition = {"StartAt": next(iter(states)), "States": states}
        body = {"title": "benchmark", "definition": definition, "input_schema": {}}
        found: str = self.post("flows", body)["id"]
        return found

    def start_run(self, flow_id: str) -> str:
        found: str = self.post(f"flows/{flow_id}/run", {"body": {"n": 1}})["run_id"]
        return found

    def wait(self, run_id: str) -> dict[str, Any]:
        while (run := self.get(f"runs/{run_id}"))["status"] == "ACTIVE":
            time.sleep(0.05)
        if run["status"] != "SUCCEEDED":
            raise RuntimeError(json.dumps(run))
        found: dict[str, Any] = run
        return found

    def memory_mb(self, what: str = "VmRSS") -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(what)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakeups(self) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("voluntary_ctxt_switches:")[1].split()[0])


def compute(function_id: str, endpoint_id: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "Action",
        "ActionUrl": COMPUTE,
        "WaitTime": 3600,
        "Parameters": {
            "endpoint_id": endpoint_id,
            "user_endpoint_config": {"profile": "control"},
            "tasks": [{"function_id": function_id, "args": [1]}],
        },
        "ResultPath": "$.task",
        **more,
    }


def search(index_id: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "Action",
        "ActionUrl": SEARCH,
        "Parameters": {
            "search_index": index_id,
            "subject": "benchmark",
            "visible_to": ["public"],
            "content": {"n": 1},
        },
        "ResultPath": "$.entry",
        **more,
    }


def chain(state: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The same state, CHAIN times."""
    return {
        f"S{n}": state(**({"Next": f"S{n + 1}"} if n < CHAIN - 1 else {"End": True}))
        for n in range(CHAIN)
    }


def five_states(function_id: str, endpoint_id: str, index_id: str) -> dict[str, Any]:
    return {
        "A": {"Type": "Pass", "Next": "B"},
        "B": compute(function_id, endpoint_id, Next="C"),
        "C": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "D"}],
            "Default": "E",
        },
        "D": search(index_id, Next="E"),
        "E": {"Type": "Pass", "End": True},
    }


def right_log(codes: list[str]) -> bool:
    """Each of the five states was entered and left once, and the two actions were begun and ended
    once."""
    return (
        codes[0] == "FlowStarted"
        and codes[-1] == "FlowSucceeded"
        and codes.count("ActionStarted") == codes.count("ActionCompleted") == 2
        and codes.count("PassStarted") == codes.count("PassCompleted") == 2
        and codes.count("ChoiceStarted") == codes.count("ChoiceCompleted") == 1
        and len(codes) == 12
    )


def seconds(run: dict[str, Any]) -> float:
    begin, end = (datetime.fromisoformat(run[name]) for name in ("start_time", "completion_time"))
    return (end - begin).total_seconds()


def measure_start(folder: Path) -> list[float]:
    taken = []
    home = Home(folder)
    for _ in range(6):
        begun = time.perf_counter()
        control.start(home, compute_port=False)
        taken.append(time.perf_counter() - begun)
        control.stop(home)
    return taken


def measure_transitions(
    server: Server, function_id: str, endpoint_id: str, index_id: str
) -> dict[str, float]:
    """Milliseconds for each state of a chain, the best of three."""
    kinds: dict[str, Callable[..., dict[str, Any]]] = {
        "pass": lambda **more: {"Type": "Pass", **more},
        "search_action": lambda **more: search(index_id, **more),
        "compute_action": lambda **more: compute(function_id, endpoint_id, **more),
    }
    found = {}
    for name, state in kinds.items():
        flow_id = server.flow(chain(state))
        server.wait(server.start_run(flow_id))  # the engine starts, the caches fill
        runs = [server.wait(server.start_run(flow_id)) for _ in range(3)]
        found[name] = min(seconds(run) for run in runs) / CHAIN * 1000
    return found


def measure_runs(server: Server, flow_id: str, count: int) -> dict[str, Any]:
    begun, cpu = time.perf_counter(), server.cpu_s()
    with ThreadPoolExecutor(CLIENTS) as clients:
        runs = list(clients.map(lambda _: server.start_run(flow_id), range(count)))
        started = time.perf_counter() - begun
        ended = [server.wait(run_id) for run_id in runs]
        taken = time.perf_counter() - begun
        used = server.cpu_s() - cpu

        def log_is_right(run_id: str) -> bool:
            entries = server.get(f"runs/{run_id}/log?limit=100")["entries"]
            return right_log([entry["code"] for entry in entries])

        right = sum(clients.map(log_is_right, runs))
    return {
        "runs": count,
        "started_s": started,
        "finished_s": taken,
        "runs_per_s": count / taken,
        "median_run_s": statistics.median(seconds(run) for run in ended),
        "server_cpu_ms_per_run": used / count * 1000,
        "right_logs": right,
        "memory_mb": server.memory_mb(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="1,10,50,200,500,1000")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cib-benchmark-") as folder:
        starts = measure_start(Path(folder, "starts"))
        home = Home(Path(folder, "home"))
        control.start(home, compute_port=False)
        try:
            report = measure(Server(home), [int(word) for word in options.runs.split(",")])
        finally:
            control.stop(home)
    report = {"first_start_s": starts[0], "start_s": statistics.median(starts[1:]), **report}
    print_report(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measure(server: Server, counts: list[int]) -> dict[str, Any]:
    fresh_mb = server.memory_mb()
    source = "def one(n):\n    return n\n"
    body = {"function_name": "one", "function_code": source, "serialized": False}
    function_id = server.post("v3/functions", body)["function_uuid"]
    endpoint_id = server.home.client().endpoint_id
    index_id = server.post("v1/index", {"display_name": "b", "description": "b"})["id"]
    transitions = measure_transitions(server, function_id, endpoint_id, index_id)
    flow_id = server.flow(five_states(function_id, endpoint_id, index_id))
    curve = [measure_runs(server, flow_id, count) for count in counts]
    cpu, woken = server.cpu_s(), server.wakeups()
    time.sleep(IDLE_S)
    return {
        "idle_cpu_percent": (server.cpu_s() - cpu) / IDLE_S * 100,
        "idle_wakeups_per_s": (server.wakeups() - woken) / IDLE_S,
        "memory_fresh_mb": fresh_mb,
        "memory_peak_mb": server.memory_mb("VmHWM"),
        "transition_ms": transitions,
        "curve": curve,
    }


def print_report(report: dict[str, Any]) -> None:
    transitions = report["transition_ms"]
    rows = [
        ("start, first time in a home", f"{report['first_start_s']:.2f} s", "under 1.5 s"),
        ("start, median of 5", f"{report['start_s']:.2f} s", "under 1.5 s"),
        ("idle: processor", f"{report['idle_cpu_percent']:.2f} %", ""),
        ("idle: wake-ups", f"{report['idle_wakeups_per_s']:.1f} /s", "no polling"),
        ("memory after start", f"{report['memory_fresh_mb']:.0f} MB", ""),
        ("memory, peak", f"{report['memory_peak_mb']:.0f} MB", "under 300 MB"),
        ("Pass state", f"{transitions['pass']:.1f} ms", ""),
        ("Action, Search", f"{transitions['search_action']:.1f} ms", "under 20 ms"),
        ("Action, Compute task and all", f"{transitions['compute_action']:.1f} ms", "under 20 ms"),
    ]
    for name, value, limit in rows:
        print(f"{name:32}{value:>12}   {limit}")
    print(
        f"\n{'runs':>6}{'finished':>11}{'runs/s':>9}{'median run':>12}{'CPU/run':>10}{'memory':>9}  right logs"
    )
    for row in report["curve"]:
        print(
            f"{row['runs']:>6}{row['finished_s']:>9.2f} s{row['runs_per_s']:>9.1f}{row['median_run_s']:>10.2f} s"
            f"{row['server_cpu_ms_per_run']:>7.1f} ms{row['memory_mb']:>6.0f} MB  {row['right_logs']}/{row['runs']}"
        )


if __name__ == "__main__":
    sys.exit(main())
