"""How long one container takes to each of several sites: transferred, checked, proved and registered.

    python benchmarks/publish.py CONTAINER --home HOME [--sites 3] [--rounds 5]

The sites are further endpoints of the local Globus in HOME, so that the transfer is a copy on one disk: what is
measured is everything but the network. The first round, in which each site's processes start, stands alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

from cib_flows.local.compute.sites import add_site, remove_site
from cib_flows.local.home import Home
from cib_flows.profiles import connect
from cib_flows.publishing import Delivery, publish
from cib_flows.sites import Site


def figures(values: list[float]) -> str:
    """Median and range in seconds."""
    return f"{statistics.median(values):5.1f} s ({min(values):.1f} to {max(values):.1f})"


def of(deliveries: list[Delivery], step: str) -> list[float]:
    found = [getattr(delivery, step) for delivery in deliveries]
    return [seconds for seconds in found if seconds is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("container")
    parser.add_argument("--home", required=True)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    home = Home(given.home)
    globus = connect("local", given.home)
    mark = time.strftime("%H%M%S")
    names = [f"bench-{mark}-{number}" for number in range(given.sites)]
    sites = [Site(name, add_site(home, name).id) for name in names]
    rounds: list[dict[str, Any]] = []
    try:
        for number in range(given.rounds + 1):
            began = time.monotonic()
            # another name, so that every site is brought all of it again
            run = publish(given.container, sites, globus, name_tag=f"bench-{mark}-{number}:v1")
            deliveries = run.result()
            rounds.append({"deliveries": deliveries, "whole_s": time.monotonic() - began})
            print(
                json.dumps(
                    {"round": number, "load": os.getloadavg()[0], "whole_s": rounds[-1]["whole_s"]}
                )
            )
    finally:
        for name in names:
            remove_site(home, name)
    container = rounds[0]["deliveries"][0].container
    print(
        f"{container.size / 1e6:.0f} MB, {given.sites} sites, {given.rounds} rounds after the first"
    )
    for title, part in (("first round", rounds[:1]), ("later rounds", rounds[1:])):
        every = [delivery for entry in part for delivery in entry["deliveries"]]
        print(
            f"{title}: transfer {figures(of(every, 'transfer_s'))}, register {figures(of(every, 'register_s'))}"
        )
        print(f"{title}: all sites {figures([entry['whole_s'] for entry in part])}")


if __name__ == "__main__":
    main()
