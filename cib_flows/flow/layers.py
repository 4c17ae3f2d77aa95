"""A layered layout: boxes in rows from top to bottom, so that few arrows cross and most run
straight down."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["ROW_GAP", "Layout", "Spot", "layered", "leading_back"]

GAP = 30.0  # between boxes of a row
ROW_GAP = 36.0  # between rows
BEND_WIDTH = 6.0
SWEEPS = 24
# A very large drawing is tidied less, so that it is done in seconds.
PATIENCE = 150_000


@dataclass
class Spot:
    """Where a box stands: ``x`` is its middle, ``y`` its top. A bend is where an arrow passes a row
    that is neither its first nor its last."""

    name: str
    width: float
    height: float
    row: int = 0
    x: float = 0.0
    y: float = 0.0
    is_bend: bool = False

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass
class Layout:
    """``chains`` holds for every arrow down the spots it goes through; ``upward`` the arrows that
    would close a circle, which are not laid out."""

    spots: dict[str, Spot]
    rows: list[list[Spot]]
    chains: dict[tuple[str, str], list[Spot]] = field(default_factory=dict)
    upward: list[tuple[str, str]] = field(default_factory=list)


def layered(
    sizes: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str]],
    roots: Sequence[str],
) -> Layout:
    """Lay out the boxes named in ``sizes`` (width, height), beginning with ``roots``."""
    downward, upward, order = _without_circles(sizes, arrows, roots)
    spots = {name: Spot(name, width, height) for name, (width, height) in sizes.items()}
    _assign_rows(spots, downward, order)
    count = max((spot.row for spot in spots.values()), default=-1) + 1
    layout = Layout(spots, [[] for _ in range(count)], upward=upward)
    for name in order:
        layout.rows[spots[name].row].append(spots[name])
    for source, target in downward:
        layout.chains[source, target] = _chain(layout, spots[source], spots[target])
    above, below = _neighbours(layout)
    _order_rows(layout, above, below)
    _place_rows(layout)
    _place_columns(layout, above, below)
    return layout


Pairs = list[tuple[str, str]]


def leading_back(
    names: Mapping[str, object], arrows: Sequence[tuple[str, str]], roots: Sequence[str]
) -> set[tuple[str, str]]:
    """The arrows that would close a circle."""
    return set(_without_circles(names, arrows, roots)[1])


def _without_circles(
    names: Mapping[str, object], arrows: Sequence[tuple[str, str]], roots: Sequence[str]
) -> tuple[Pairs, Pairs, list[str]]:
    """The arrows that lead on, those that lead back, and the names in an order in which the
    former lead forward."""
    following: dict[str, list[str]] = {name: [] for name in names}
    for source, target in arrows:
        if source in following and target in following and target not in following[source]:
            following[source].append(target)
    finished: list[str] = []
    state: dict[str, int] = {}
    upward: Pairs = []
    for root in [*roots, *names]:
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(following[root]))]
        while stack:
            name, rest = stack[-1]
            for target in rest:
                if state.get(target) == 1:
                    upward.append((name, target))
                elif target not in state:
                    state[target] = 1
                    stack.append((target, iter(following[target])))
                    break
            else:
                state[name] = 2
                finished.append(name)
                stack.pop()
    back = set(upward)
    downward = [
        (source, target)
        for source, found in following.items()
        for target in found
        if (source, target) not in back
    ]
    return downward, upward, finished[::-1]


def _assign_rows(spots: dict[str, Spot], downward: Pairs, order: list[str]) -> None:
    outgoing: dict[str, list[str]] = {name: [] for name in spots}
    incoming: dict[str, list[str]] = {name: [] for name in spots}
    for source, target in downward:
        outgoing[source].append(target)
        incoming[target].append(source)
    for name in order:
        spots[name].row = max((spots[other].row + 1 for other in incoming[name]), default=0)
    for name in reversed(order):
        # A box with more arrows out than in stands just above what follows it.
        if len(outgoing[name]) > len(incoming[name]) and incoming[name]:
            spots[name].row = min(spots[other].row for other in outgoing[name]) - 1


def _chain(layout: Layout, source: Spot, target: Spot) -> list[Spot]:
    chain = [source]
    for row in range(source.row + 1, target.row):
        bend = Spot(f"{source.name}>{target.name}@{row}", BEND_WIDTH, 0.0, row, is_bend=True)
        layout.rows[row].append(bend)
        chain.append(bend)
    return [*chain, target]


Neighbours = dict[str, list[Spot]]


def _neighbours(layout: Layout) -> tuple[Neighbours, Neighbours]:
    above: Neighbours = {spot.name: [] for row in layout.rows for spot in row}
    below: Neighbours = {name: [] for name in above}
    for chain in layout.chains.values():
        for upper, lower in itertools.pairwise(chain):
            below[upper.name].append(lower)
            above[lower.name].append(upper)
    return above, below


def _order_rows(layout: Layout, above: Neighbours, below: Neighbours) -> None:
    """Order each row by the mean place of what its boxes are joined to; keep the best order."""
    best = [list(row) for row in layout.rows]
    fewest = _crossings(best, below)
    place = {spot.name: number for row in layout.rows for number, spot in enumerate(row)}
    for sweep in range(_sweeps(layout)):
        downward = sweep % 2 == 0
        rows = layout.rows if downward else layout.rows[::-1]
        fixed = above if downward else below
        for row in rows:
            means = {}
            for number, spot in enumerate(row):
                joined = [place[other.name] for other in fixed[spot.name]]
                means[spot.name] = sum(joined) / len(joined) if joined else float(number)
            row.sort(key=lambda spot, means=means: means[spot.name])  # type: ignore[misc]
            place.update((spot.name, number) for number, spot in enumerate(row))
        crossings = _crossings(layout.rows, below)
        if crossings < fewest:
            best, fewest = [list(row) for row in layout.rows], crossings
        if fewest == 0:
            break
    layout.rows[:] = best


def _crossings(rows: list[list[Spot]], below: Neighbours) -> int:
    count = 0
    for upper, lower in itertools.pairwise(rows):
        place = {spot.name: number for number, spot in enumerate(lower)}
        ends: list[int] = []
        for spot in upper:
            targets = [place[other.name] for other in below[spot.name]]
            # A line crosses those that began further left and end further right.
            count += sum(len(ends) - bisect.bisect_right(ends, target) for target in targets)
            for target in targets:
                bisect.insort(ends, target)
    return count


def _sweeps(layout: Layout) -> int:
    return max(2, min(SWEEPS, PATIENCE // sum(len(row) for row in layout.rows)))


def _place_rows(layout: Layout) -> None:
    y = 0.0
    for row in layout.rows:
        height = max((spot.height for spot in row), default=0.0)
        for spot in row:
            spot.y = y + (height - spot.height) / 2
        y += height + ROW_GAP


def _place_columns(layout: Layout, above: Neighbours, below: Neighbours) -> None:
    for row in layout.rows:
        x = 0.0
        for spot in row:
            spot.x = x + spot.width / 2
            x += spot.width + GAP
    sweeps = _sweeps(layout)
    for sweep in range(sweeps * 4):
        downward = sweep % 2 == 0
        for row in layout.rows if downward else layout.rows[::-1]:
            wishes, weights = [], []
            for spot in row:
                joined = (above if downward else below)[spot.name] or [spot]
                if sweep >= sweeps:
                    joined = [*above[spot.name], *below[spot.name]] or [spot]
                pulls = [8.0 if other.is_bend and spot.is_bend else 1.0 for other in joined]
                total = sum(pulls)
                wish = sum(p * other.x for p, other in zip(pulls, joined, strict=True)) / total
                wishes.append(wish)
                weights.append(8.0 if spot.is_bend else 1.0)
            for spot, x in zip(row, _apart(row, wishes, weights), strict=True):
                spot.x = x
    left = min((spot.left for row in layout.rows for spot in row), default=0.0)
    for row in layout.rows:
        for spot in row:
            spot.x -= left


def _apart(row: list[Spot], wishes: list[float], weights: list[float]) -> list[float]:
    """The places nearest to what the boxes wish (in the sense of least squares) at which they keep
    their order and their distance: an isotonic regression by pooling neighbours."""
    offsets = [0.0]
    for one, other in itertools.pairwise(row):
        gap = GAP if not (one.is_bend or other.is_bend) else GAP / 2
        offsets.append(offsets[-1] + (one.width + other.width) / 2 + gap)
    pools: list[tuple[float, float, int]] = []  # mean, weight, members
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        pools.append((wish - offset, weight, 1))
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (mean, weight_2, members), (mean_1, weight_1, members_1) = pools.pop(), pools.pop()
            both = weight_1 + weight_2
            pools.append(((mean * weight_2 + mean_1 * weight_1) / both, both, members + members_1))
    places = [mean for mean, _, members in pools for _ in range(members)]
    return [place + offset for place, offset in zip(places, offsets, strict=True)]
