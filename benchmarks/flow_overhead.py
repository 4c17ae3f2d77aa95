"""What the flow costs around the build itself.

    python benchmarks/flow_overhead.py --home HOME [--rounds 5] [--spec examples/pandas.yaml] [--json OUT]

Builds the spec by force through a running local Globus, each time from nothing, and compares the whole
command's time with the time that ``apptainer build`` took in that very run, as the build step wrote it
down. The difference is everything else: command line, service, engines, recipe, verification (which runs
the image), registration.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def one_round(home: Path, spec: Path) -> dict[str, float]:
    started = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from cib_flows.cli import main; main()"),
            *("build", str(spec), "--home", str(home), "--force", "--json"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    whole = time.monotonic() - started
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    site = json.loads((home / "site.json").read_text())
    build = json.loads((Path(site["root"]) / "runs" / answer["run_id"] / "build.json").read_text())
    return {"whole": whole, "apptainer": build["build_s"], "around": whole - build["build_s"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spec", type=Path, default=Path("examples/pandas.yaml"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    one_round(asked.home, asked.spec)  # the first run deploys and starts the engines
    rounds = [one_round(asked.home, asked.spec) for _ in range(asked.rounds)]
    print("seconds, median (least to most)")
    for part in ("whole", "apptainer", "around"):
        values = [found[part] for found in rounds]
        print(
            f"  {part:10s}{statistics.median(values):7.2f}  ({min(values):.2f} to {max(values):.2f})"
        )
    if asked.json:
        asked.json.write_text(json.dumps(rounds, indent=2) + "\n")


if __name__ == "__main__":
    main()
