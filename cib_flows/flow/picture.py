"""Where everything of a drawing stands: the usual way through the flow in the middle, what happens
after a failure to its right, and loops back up on its left."""

from __future__ import annotations

from dataclasses import dataclass, field

from .describe import shortened
from .diagram import Arrow, Box, Diagram
from .layers import ROW_GAP, Layout, Spot, layered, leading_back
from .text_width import text_width

__all__ = ["LABEL_SIZE", "Label", "Line", "Picture", "Placed", "picture"]

TITLE_SIZE, SUBTITLE_SIZE, LABEL_SIZE = 13.0, 11.0, 11.0
BOX_HEIGHT, LABEL_HEIGHT = 44.0, 16.0
LANE = 14.0  # between lines that run side by side
MARGIN = 24.0
TOP = 30.0  # room for the start mark
MAX_LABEL = 46

Point = tuple[float, float]


@dataclass
class Placed:
    """A state's box with its left upper corner."""

    box: Box
    x: float
    y: float
    width: float
    height: float


@dataclass
class Line:
    """An arrow: ``bends`` are the corners it goes through; ``curved`` when it swings between them,
    otherwise its corners are rounded."""

    arrow: Arrow
    bends: list[Point]
    curved: bool
    pointed: bool = True


@dataclass
class Label:
    """``x`` is the text's middle, or its left or right end as ``anchor`` says; ``y`` its
    baseline."""

    text: str
    full: str
    x: float
    y: float
    anchor: str = "middle"


@dataclass
class Picture:
    width: float
    height: float
    start: Point
    boxes: list[Placed] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)


def picture(content: Diagram) -> Picture:
    """Place everything that ``content`` shows."""
    return _Composer(content).compose()


def _box_size(box: Box) -> tuple[float, float]:
    width = max(
        text_width(box.name, TITLE_SIZE, bold=True), text_width(box.subtitle, SUBTITLE_SIZE)
    )
    slant = 28.0 if box.kind == "Choice" else 0.0
    return max(104.0, width + 28.0 + slant), BOX_HEIGHT


def _label_id(arrow: Arrow) -> str:
    return f"{arrow.source}\0{arrow.target}\0{arrow.kind}"


@dataclass
class _Area:
    """A layout and where its left upper corner is."""

    layout: Layout
    x: float = 0.0
    y: float = 0.0

    def outermost(self, spot: Spot, right: bool) -> bool:
        boxes = [other for other in self.layout.rows[spot.row] if not other.is_bend]
        return boxes[-1 if right else 0] is spot

    def gap_below(self, spot: Spot) -> float:
        return self.bottom(spot.row) + ROW_GAP * 0.28

    def gap_above(self, spot: Spot) -> float:
        return self.top(spot.row) - ROW_GAP * 0.55

    def top(self, row: int) -> float:
        return self.y + min(spot.y for spot in self.layout.rows[row])

    def bottom(self, row: int) -> float:
        return self.y + max(spot.bottom for spot in self.layout.rows[row])


class _Composer:
    def __init__(self, content: Diagram) -> None:
        self._content = content
        self._main = [name for name, box in content.boxes.items() if not box.aside]
        self._exits: dict[tuple[str, bool], int] = {}
        self._lines: list[Line] = []
        self._labels: list[Label] = []
        self._areas: dict[str, _Area] = {}

    def compose(self) -> Picture:
        main = self._area(self._main, [self._content.start])
        sides = [self._area(names, self._entries(names)) for names in self._side_groups()]
        crossing = [
            arrow
            for arrow in self._content.arrows
            if self._areas[arrow.source] is not self._areas[arrow.target]
        ]
        left_lanes = len(main.layout.upward)
        right_lanes = self._lanes(crossing)
        main.x = (
            MARGIN + self._label_room(main, left=True) + LANE * (left_lanes + 1) * (left_lanes > 0)
        )
        main.y = TOP + MARGIN
        bus = main.x + self._width(main) + self._label_room(main, left=False) + LANE
        self._place_sides(sides, main, crossing, bus + LANE * (len(right_lanes) + 0.5))
        self._draw_downward(main)
        for side in sides:
            self._draw_downward(side)
        self._draw_loops(main, right=False, first=main.x - self._label_room(main, left=True) - LANE)
        for side in sides:
            self._draw_loops(side, right=True, first=side.x + self._width(side) + LANE)
        self._draw_crossing(crossing, right_lanes, bus)
        return self._finished(main, sides)

    # --- areas ------------------------------------------------------------------------------------

    def _area(self, names: list[str], roots: list[str]) -> _Area:
        inside = set(names)
        arrows = [
            arrow
            for arrow in self._content.arrows
            if arrow.source in inside and arrow.target in inside
        ]
        pairs = [(arrow.source, arrow.target) for arrow in arrows]
        sizes = {name: _box_size(self._content.boxes[name]) for name in names}
        back = leading_back(sizes, pairs, roots)
        joined: list[tuple[str, str]] = []
        for arrow in arrows:
            if (arrow.source, arrow.target) in back or not arrow.label:
                joined.append((arrow.source, arrow.target))
                continue
            label = _label_id(arrow)
            sizes[label] = (text_width(_short(arrow), LABEL_SIZE) + 8.0, LABEL_HEIGHT)
            joined += [(arrow.source, label), (label, arrow.target)]
        layout = layered(sizes, joined, roots)
        area = _Area(layout)
        for name in names:
            self._areas[name] = area
        return area

    def _side_groups(self) -> list[list[str]]:
        """The states aside, those together that are joined."""
        aside = [name for name, box in self._content.boxes.items() if box.aside]
        group = {name: name for name in aside}

        def head(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for arrow in self._content.arrows:
            if arrow.source in group and arrow.target in group:
                group[head(arrow.target)] = head(arrow.source)
        groups: dict[str, list[str]] = {}
        for name in aside:
            groups.setdefault(head(name), []).append(name)
        return list(groups.values())

    def _entries(self, names: list[str]) -> list[str]:
        inside = set(names)
        entered = {
            arrow.target
            for arrow in self._content.arrows
            if arrow.target in inside and arrow.source not in inside
        }
        return [name for name in names if name in entered]

    def _width(self, area: _Area) -> float:
        return max(spot.right for row in area.layout.rows for spot in row)

    def _label_room(self, main: _Area, *, left: bool) -> float:
        """How far the labels of lines that leave sideways stand out of the main area."""
        room = 0.0
        for arrow in self._content.arrows:
            source = self._areas[arrow.source]
            loop = (arrow.source, arrow.target) in main.layout.upward
            leaves = loop if left else source is not self._areas[arrow.target]
            if source is not main or not arrow.label or not leaves:
                continue
            spot = main.layout.spots[arrow.source]
            edge = spot.left if left else self._width(main) - spot.right
            room = max(room, text_width(_short(arrow), LABEL_SIZE) + 10.0 - edge)
        return room

    def _place_sides(
        self, sides: list[_Area], main: _Area, crossing: list[Arrow], x: float
    ) -> None:
        """One below the other, each as near as it may be to the states that lead to it."""
        wishes: list[tuple[float, _Area]] = []
        for side in sides:
            ys = []
            for arrow in crossing:
                if self._areas[arrow.target] is side and self._areas[arrow.source] is main:
                    source = main.layout.spots[arrow.source]
                    ys.append(main.y + source.y - side.layout.spots[arrow.target].y)
            ys.sort()
            wishes.append((ys[len(ys) // 2] if ys else main.y, side))
        floor = main.y
        for wish, side in sorted(wishes, key=lambda pair: pair[0]):
            side.x, side.y = x, max(wish, floor)
            height = max(spot.bottom for row in side.layout.rows for spot in row)
            floor = side.y + height + ROW_GAP

    # --- lines within an area ---------------------------------------------------------------------

    def _draw_downward(self, area: _Area) -> None:
        for arrow in self._content.arrows:
            pair = (arrow.source, arrow.target)
            if self._areas[arrow.source] is not area or pair in area.layout.upward:
                continue
            label = _label_id(arrow)
            if label in area.layout.spots:
                spot = area.layout.spots[label]
                upper = area.layout.chains[arrow.source, label]
                lower = area.layout.chains[label, arrow.target]
                self._lines.append(Line(arrow, self._through(area, upper), True, pointed=False))
                self._lines.append(Line(arrow, self._through(area, lower), True))
                self._label(arrow, area.x + spot.x, area.y + spot.middle + LABEL_SIZE * 0.35)
            elif pair in area.layout.chains:
                chain = area.layout.chains[pair]
                self._lines.append(Line(arrow, self._through(area, chain), True))

    @staticmethod
    def _through(area: _Area, chain: list[Spot]) -> list[Point]:
        points = [(area.x + chain[0].x, area.y + chain[0].bottom)]
        for bend in chain[1:-1]:
            # Straight past the boxes of the row, so that the line swings only between rows.
            x = area.x + bend.x
            points += [(x, area.top(bend.row)), (x, area.bottom(bend.row))]
        return [*points, (area.x + chain[-1].x, area.y + chain[-1].y)]

    def _label(self, arrow: Arrow, x: float, y: float, anchor: str = "middle") -> None:
        if arrow.label:
            self._labels.append(Label(_short(arrow), arrow.label, x, y, anchor))

    # --- lines at the sides -----------------------------------------------------------------------

    def _draw_loops(self, area: _Area, *, right: bool, first: float) -> None:
        loops = [
            arrow
            for arrow in self._content.arrows
            if (arrow.source, arrow.target) in area.layout.upward
            and self._areas[arrow.source] is area
        ]
        # The short ones inside.
        loops.sort(key=lambda arrow: self._span(area, arrow))
        for number, arrow in enumerate(loops):
            lane = first + (LANE if right else -LANE) * number
            leave = self._leave(arrow, right)
            enter = self._enter(arrow, right)
            self._lines.append(
                Line(arrow, [*leave, (lane, leave[-1][1]), (lane, enter[0][1]), *enter], False)
            )

    @staticmethod
    def _span(area: _Area, arrow: Arrow) -> int:
        spots = area.layout.spots
        return spots[arrow.source].row - spots[arrow.target].row

    def _leave(self, arrow: Arrow, right: bool) -> list[Point]:
        """From a box to the height at which its line goes sideways; the label stands there."""
        area = self._areas[arrow.source]
        spot = area.layout.spots[arrow.source]
        count = self._exits.get((arrow.source, right), 0)
        self._exits[arrow.source, right] = count + 1
        sign = 1.0 if right else -1.0
        edge = area.x + (spot.right if right else spot.left)
        if area.outermost(spot, right):
            y = area.y + spot.middle + (0.0, 13.0, -13.0)[count % 3]
            points = [(edge, y)]
        else:
            x = edge - sign * (14.0 + 10.0 * count)
            y = area.gap_below(spot) + 3.0 * count
            points = [(x, area.y + spot.bottom), (x, y)]
        anchor = "start" if right else "end"
        self._label(arrow, edge + sign * 6.0, y - 4.0, anchor)
        return points

    def _enter(self, arrow: Arrow, right: bool) -> list[Point]:
        """From the height at which a line comes from the side to its box."""
        area = self._areas[arrow.target]
        spot = area.layout.spots[arrow.target]
        edge = area.x + (spot.right if right else spot.left)
        if area.outermost(spot, right):
            # Beside the lines that leave on this side.
            taken = self._exits.get((arrow.target, right), 0)
            return [(edge, area.y + spot.middle + (0.0, 13.0, -13.0)[min(taken, 2)])]
        x = edge - (14.0 if right else -14.0)
        y = area.gap_above(spot)
        return [(x, y), (x, area.y + spot.y)]

    # --- lines between areas ----------------------------------------------------------------------

    def _lanes(self, crossing: list[Arrow]) -> list[tuple[str, bool]]:
        """Lines to the same state share a lane; those that lead back into the main area keep
        nearest to it."""
        lanes = {(arrow.target, not self._content.boxes[arrow.target].aside) for arrow in crossing}
        order = list(self._content.boxes)
        return sorted(lanes, key=lambda lane: (not lane[1], order.index(lane[0])))

    def _draw_crossing(
        self, crossing: list[Arrow], lanes: list[tuple[str, bool]], bus: float
    ) -> None:
        for arrow in crossing:
            back = not self._content.boxes[arrow.target].aside
            lane = bus + LANE * lanes.index((arrow.target, back))
            outward = self._areas[arrow.source].x < lane
            leave = self._leave(arrow, right=outward)
            enter = self._enter(arrow, right=back)
            self._lines.append(
                Line(arrow, [*leave, (lane, leave[-1][1]), (lane, enter[0][1]), *enter], False)
            )

    # --- the whole --------------------------------------------------------------------------------

    def _finished(self, main: _Area, sides: list[_Area]) -> Picture:
        boxes = []
        for name, area in self._areas.items():
            spot = area.layout.spots[name]
            box = self._content.boxes[name]
            boxes.append(Placed(box, area.x + spot.left, area.y + spot.y, spot.width, spot.height))
        points = [point for line in self._lines for point in line.bends]
        edges = [placed.x + placed.width for placed in boxes] + [x for x, _ in points]
        for label in self._labels:
            width = text_width(label.text, LABEL_SIZE)
            edges.append(label.x + {"start": width, "middle": width / 2, "end": 0.0}[label.anchor])
        bottoms = [placed.y + placed.height for placed in boxes] + [y for _, y in points]
        start = main.layout.spots[self._content.start]
        return Picture(
            max(edges) + MARGIN,
            max(bottoms) + MARGIN,
            (main.x + start.x, main.y + start.y),
            boxes,
            self._lines,
            self._labels,
        )


def _short(arrow: Arrow) -> str:
    return shortened(arrow.label, MAX_LABEL)
