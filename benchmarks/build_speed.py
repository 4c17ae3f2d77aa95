"""How long a build takes, beside what custom-image-builder would have rendered: same base, same packages.

    python benchmarks/build_speed.py --site SITE.json [--rounds 5] [--case pandas] [--json OUT] [--svg OUT]

Each round runs every kind of build once, one after another, so that a change in the machine's speed meets
all of them alike; ratios are taken round by round. Kinds:

- ``baseline``: the older tool's recipe, made non-interactive (one pip command per package, Apptainer's own
  compressor and temporary folder), with empty caches;
- ``baseline again``: the same, with Apptainer's cache of the base image;
- ``cold``: our functions on an empty root;
- ``again``: the finished image is gone, everything else is there;
- ``one more``: one Python package added to that spec;
- ``identical``: the spec as built; answered by ``render_recipe`` without building.

Runs as an ordinary user, like everything that builds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from build_report import KINDS, picture, text_table  # beside this program

from cib_flows.functions._shared.places import processors
from cib_flows.functions._shared.registry import resolve
from cib_flows.functions._shared.run_versions import engine_version, worker_versions
from cib_flows.functions._shared.site import load_site
from cib_flows.functions.build_image import build_image
from cib_flows.functions.register_container import register_container
from cib_flows.functions.render_recipe import render_recipe
from cib_flows.functions.verify_image import verify_image

BASE = "python:3.11-slim"
CASES: dict[str, dict[str, Any]] = {
    "pandas": {"apt": ["git"], "pip": ["pandas"]},
    # matplotlib and scikit-learn as wheels, and one package that has to be compiled
    "science": {
        "apt": ["git", "gcc", "python3-dev"],
        "pip": ["scikit-learn", "matplotlib", "pandas", "python-snappy", "pyahocorasick"],
    },
    "small-files": {
        "apt": [],
        "pip": ["pandas"],
        "commands": [
            "mkdir -p /opt/many && cd /opt/many && "
            "for d in $(seq 100); do mkdir $d; for f in $(seq 100); do echo $d $f > $d/$f; done; done"
        ],
    },
}


class Bench:
    """One case on one machine."""

    def __init__(self, case: str, site: dict[str, Any], folder: Path) -> None:
        self.spec = {"name": f"bench-{case}", "base": {"image": BASE}, **CASES[case]}
        self.site = site
        self.folder = folder
        self.root = folder / "root"
        self.sizes: dict[str, int] = {}
        self.parts: dict[str, list[dict[str, Any]]] = {}

    def ours(self, kind: str, spec: dict[str, Any]) -> float:
        """Run the steps; returns the build step's seconds, and notes the others'."""
        run_id = str(uuid.uuid4())
        rendered = _good(render_recipe(spec, run_id))
        if rendered["cached"]:
            return float(rendered["elapsed_s"])
        built = _good(build_image(run_id, rendered["recipe_sha256"]))
        verified = _good(verify_image(run_id, built["sif_sha256"]))
        registered = _good(
            register_container(
                run_id,
                str(uuid.uuid4()),
                sif_sha256=built["sif_sha256"],
                verification_sha256=verified["verification_sha256"],
            )
        )
        self.sizes[kind] = built["sif_bytes"]
        self.parts.setdefault(kind, []).append(
            {
                "render": rendered["elapsed_s"],
                "verify": verified["elapsed_s"],
                "register": registered["elapsed_s"],
                "phases": built["phases_s"],
            }
        )
        return float(built["elapsed_s"])

    def cold(self) -> float:
        shutil.rmtree(self.root, ignore_errors=True)
        return self.ours("cold", self.spec)

    def again(self) -> float:
        for part in ("images", "builds", "tags", "index"):
            shutil.rmtree(self.root / part, ignore_errors=True)
        return self.ours("again", self.spec)

    def one_more(self) -> float:
        return self.ours("one more", {**self.spec, "pip": [*self.spec["pip"], "tabulate"]})

    def identical(self) -> float:
        return self.ours("identical", self.spec)

    def baseline(self, *, empty: bool) -> float:
        """The older tool's recipe, as ``apptainer build --force`` would have been given it."""
        cache = self.folder / "baseline-cache"
        if empty:
            shutil.rmtree(cache, ignore_errors=True)
        base, _ = resolve(BASE, self.site, "docker")
        pins = [f"{name}=={version}" for name, version in worker_versions("endpoint").items()]
        lines = ["Bootstrap: docker", f"From: {base}", "%post", "    apt-get update"]
        lines += [f"    apt-get install -y {package}" for package in self.spec["apt"]]
        lines += [
            f"    python3 -m pip install --break-system-packages {package}"
            for package in [*self.spec["pip"], *pins]
        ]
        lines += [f"    {command}" for command in self.spec.get("commands", [])]
        recipe = self.folder / "baseline.def"
        recipe.write_text("\n".join(lines) + "\n")
        image = self.folder / "baseline.sif"
        environment = {**os.environ, "APPTAINER_CACHEDIR": str(cache)}
        options = []
        if self.site["ca_bundle"]:
            options = ["--bind", f"{self.site['ca_bundle']}:/mnt"]
            # a file cannot be bound over a folder: lend it in one
            lent = self.folder / "lent"
            lent.mkdir(exist_ok=True)
            shutil.copyfile(self.site["ca_bundle"], lent / "ca.crt")
            options = ["--bind", f"{lent}:/mnt"]
            environment["APPTAINERENV_PIP_CERT"] = "/mnt/ca.crt"
        started = time.monotonic()
        done = subprocess.run(
            ["apptainer", "build", "--force", *options, str(image), str(recipe)],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        elapsed = time.monotonic() - started
        if done.returncode != 0:
            raise SystemExit(f"the baseline could not be built:\n{done.stderr[-2000:]}")
        self.sizes["baseline"] = image.stat().st_size
        return elapsed

    def first_import(self, image: Path) -> float:
        """Seconds of ``import pandas`` in a fresh container of ``image``, as Python itself measures them."""
        program = (
            "import time; t = time.perf_counter(); import pandas; print(time.perf_counter() - t)"
        )
        done = subprocess.run(
            ["apptainer", "--silent", "run", "--containall", str(image), "python3", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout)

    def images(self) -> dict[str, Path]:
        ours = sorted((self.root / "images").glob("*/*.sif"))
        return {"baseline": self.folder / "baseline.sif", "ours": ours[0]}


def _good(result: dict[str, Any]) -> dict[str, Any]:
    if not result["ok"]:
        raise SystemExit(f"{result['step']}: {result['error']['message']}")
    return result


def measure(case: str, rounds: int, site: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All rounds of one case: seconds per kind, ratios to the baseline, sizes, import times."""
    bench = Bench(case, site, folder)
    runs: dict[str, Callable[[], float]] = {
        "baseline": lambda: bench.baseline(empty=True),
        "cold": bench.cold,
        "baseline again": lambda: bench.baseline(empty=False),
        "again": bench.again,
        "one more": bench.one_more,
        "identical": bench.identical,
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    imports: dict[str, list[float]] = {"baseline": [], "ours": []}
    for number in range(rounds):
        for kind, run in runs.items():
            seconds[kind].append(run())
            print(f"{case} round {number + 1}: {kind} {seconds[kind][-1]:.2f} s", flush=True)
        for name, image in bench.images().items():
            imports[name].append(bench.first_import(image))
    beside = {
        "cold": "baseline",
        "again": "baseline again",
        "one more": "baseline again",
    }
    ratios = {
        kind: [theirs / ours for theirs, ours in zip(seconds[base], seconds[kind], strict=True)]
        for kind, base in beside.items()
    }
    ratios["first import"] = [
        theirs / ours for theirs, ours in zip(imports["baseline"], imports["ours"], strict=True)
    ]
    caches = {
        folder.name: sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        for folder in sorted((bench.root / "cache").iterdir())
    }
    return {
        "case": case,
        "seconds": seconds,
        "imports": imports,
        "ratios": ratios,
        "bytes": bench.sizes,
        "parts": bench.parts,
        "cache_bytes": caches,
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processors": processors(),
        "memory_gib": round(pages * page_bytes / 1024**3),
        "engine": engine_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--site", required=True, type=Path, help="site profile of this machine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    about = machine()
    results: list[dict[str, Any]] = []
    for case in asked.case or sorted(CASES):
        with tempfile.TemporaryDirectory(prefix="cib-bench-", dir=Path.home()) as name:
            folder = Path(name)
            profile = {"unpack_in_memory": True, **json.loads(asked.site.read_text())}
            profile["root"] = str(folder / "root")
            site_file = folder / "site.json"
            site_file.write_text(json.dumps(profile))
            os.environ["CIB_FLOWS_SITE"] = str(site_file)
            results.append(measure(case, asked.rounds, load_site(), folder))
        print(text_table(results[-1]), flush=True)
        # after each case: what has been measured is kept when a later one fails
        if asked.json:
            found = {"machine": about, "rounds": asked.rounds, "cases": results}
            asked.json.write_text(json.dumps(found, indent=2) + "\n")
        if asked.svg:
            asked.svg.write_text(picture(results))


if __name__ == "__main__":
    main()
