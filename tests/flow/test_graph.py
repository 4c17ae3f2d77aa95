"""Drawings: everything is shown, nothing covers anything else, and hostile names do no harm."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import cib_flows
from cib_flows.errors import UsageError
from cib_flows.flow import draw
from cib_flows.flow.describe import rule_text
from cib_flows.flow.diagram import diagram
from cib_flows.flow.graph import failing
from cib_flows.flow.picture import Line, Picture, Placed, picture
from tests.flow.states import action, one_state

SVG = "{http://www.w3.org/2000/svg}"
HERE = Path(__file__).parent / "definitions"
OURS = Path(cib_flows.__file__).parent / "flows" / "build_container" / "definition.json"
FILES = [OURS, *sorted(HERE.glob("*_definition.json"))]


def definition_in(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def ladder(rungs: int) -> dict[str, Any]:
    """Many choices, each of which may leap far ahead, go back, or fail."""
    states: dict[str, Any] = {"End": {"Type": "Pass", "End": True}, "Bad": {"Type": "Fail"}}
    for n in range(rungs):
        ways = [f"S{(n * 7 + 3) % rungs}", f"S{max(0, n - 4)}", "Bad", "End"]
        rules = [{"Variable": f"$.v{k}", "IsPresent": True, "Next": w} for k, w in enumerate(ways)]
        following = f"S{n + 1}" if n + 1 < rungs else "End"
        states[f"S{n}"] = {"Type": "Choice", "Choices": rules, "Default": following}
    return {"StartAt": "S0", "States": states}


DEFINITIONS = {
    **{path.stem: definition_in(path) for path in FILES},
    "one state": one_state({"Type": "Pass", "End": True}),
    "only failure": one_state({"Type": "Fail"}),
    "round for ever": one_state({"Type": "Wait", "Seconds": 1, "Next": "Only"}),
    "ladder": ladder(24),
}


@pytest.fixture(params=DEFINITIONS, ids=lambda name: str(name).replace(" ", "-"))
def definition(request: pytest.FixtureRequest) -> dict[str, Any]:
    return copy.deepcopy(DEFINITIONS[request.param])


def overlap(one: Placed, other: Placed) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def test_no_box_covers_another_and_all_lie_within_the_picture(definition: dict[str, Any]) -> None:
    placed = picture(diagram(definition))
    assert {item.box.name for item in placed.boxes} == set(definition["States"])
    for number, one in enumerate(placed.boxes):
        assert one.x > 0
        assert one.y > 0
        assert one.x + one.width < placed.width
        assert one.y + one.height < placed.height
        assert not any(overlap(one, other) for other in placed.boxes[number + 1 :])


def straight_parts(line: Line) -> list[tuple[float, float, float, float]]:
    pairs = list(zip(line.bends, line.bends[1:], strict=False))
    return [(min(a, c), min(b, d), max(a, c), max(b, d)) for (a, b), (c, d) in pairs]


def crossed(placed: Picture) -> list[tuple[str, str, str]]:
    """The lines that run through a box."""
    found = []
    for line in placed.lines:
        for left, top, right, bottom in straight_parts(line):
            if line.curved and right - left > 0.5:
                # A swing keeps between two rows; only what stands straight could pass a box.
                continue
            for item in placed.boxes:
                inside = (
                    left < item.x + item.width - 1
                    and right > item.x + 1
                    and top < item.y + item.height - 1
                    and bottom > item.y + 1
                )
                if inside:
                    found.append((line.arrow.source, line.arrow.target, item.box.name))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_line_runs_through_a_box(path: Path) -> None:
    assert crossed(picture(diagram(definition_in(path)))) == []


def test_every_arrow_touches_its_boxes(definition: dict[str, Any]) -> None:
    content = diagram(definition)
    placed = picture(content)
    boxes = {item.box.name: item for item in placed.boxes}

    def touches(name: str, point: tuple[float, float]) -> bool:
        box, (x, y) = boxes[name], point
        return box.x - 1 <= x <= box.x + box.width + 1 and box.y - 1 <= y <= box.y + box.height + 1

    for arrow in content.arrows:
        lines = [line for line in placed.lines if line.arrow is arrow]
        assert any(touches(arrow.source, line.bends[0]) for line in lines), arrow
        assert any(touches(arrow.target, line.bends[-1]) and line.pointed for line in lines), arrow


def test_the_svg_is_whole_and_can_be_read_aloud(definition: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "my flow.json"
    path.write_text(json.dumps(definition))
    text = draw(path)
    root = ET.fromstring(text)
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "my flow"
    said = root.findtext(f"{SVG}desc") or ""
    assert all(name in said for name in definition["States"])
    names = [item.text for item in root.iter(f"{SVG}text") if item.get("class") == "name"]
    assert sorted(map(str, names)) == sorted(definition["States"])
    assert draw(path) == text


def test_our_flow_keeps_failures_aside() -> None:
    content = diagram(definition_in(OURS))
    aside = {name for name, box in content.boxes.items() if box.aside}
    assert aside == {"CollectFailure", "ReportFailure", "Failed", "FailedUnreported"}
    assert aside == failing(definition_in(OURS)["States"])
    placed = picture(content)
    main = max(item.x + item.width for item in placed.boxes if not item.box.aside)
    assert all(item.x > main for item in placed.boxes if item.box.aside)


def test_a_handler_that_recovers_is_aside_but_does_not_fail() -> None:
    content = diagram(definition_in(HERE / "batches_definition.json"))
    shown = {name: (box.aside, box.fails) for name, box in content.boxes.items()}
    assert shown["Later"] == (True, False)
    assert shown["GivenUp"] == (True, True)
    assert shown["Move"] == (False, False)


HOSTILE = {
    "StartAt": 'a"<b>&',
    "States": {
        'a"<b>&': {
            "Type": "Choice",
            "Comment": "</title><script>alert(1)</script>",
            "Choices": [{"Variable": "$.x", "StringEquals": '"]|--><&\\', "Next": "end\n]"}],
            "Default": "end\n]",
        },
        "end\n]": {"Type": "Pass", "End": True},
    },
}


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(HOSTILE))
    root = ET.fromstring(draw(path, "svg"))
    assert not list(root.iter(f"{SVG}script"))
    assert {item.text for item in root.iter(f"{SVG}text") if item.get("class") == "name"} == set(
        HOSTILE["States"]
    )
    for line in draw(path, "mermaid").splitlines():
        assert "<script" not in line
        assert line.count('"') % 2 == 0
    dot = draw(path, "dot")
    assert '"a\\"<b>&"' in dot
    assert '"end\\n]"' in dot


def test_mermaid_and_dot_hold_every_transition() -> None:
    mermaid, dot = draw(OURS, "mermaid"), draw(OURS, "dot")
    content = diagram(definition_in(OURS))
    assert mermaid.startswith("flowchart TD\n")
    arrows = [line for line in mermaid.splitlines() if "-->" in line or "-.->" in line]
    assert len(arrows) == len(content.arrows) + 1
    assert sum("-.->" in line for line in arrows) == sum(a.kind == "catch" for a in content.arrows)
    assert dot.count(" -> ") == len(content.arrows) + 1
    assert '"RenderRecipe" -> "CollectFailure" [style=dashed color="#b83232"]' in dot


RULES = {
    "a = 1": {"Variable": "$.a", "NumericEquals": 1},
    "b.a ≥ c": {"Variable": "$.x.b.a", "NumericGreaterThanEqualsPath": "$.c"},
    "Step.ok": {"Variable": "$.Step.details.results[0].output.ok", "BooleanEquals": True},
    "not Step.ok": {
        "Not": {
            "And": [
                {"Variable": "$.Step.details.results[0].output.ok", "IsPresent": True},
                {"Variable": "$.Step.details.results[0].output.ok", "BooleanEquals": True},
            ]
        }
    },
    "no a": {"Not": {"Variable": "$.a", "IsPresent": True}},
    "a is there": {"Variable": "$.a", "IsPresent": True},
    'a ≠ "x"': {"Not": {"Variable": "$.a", "StringEquals": "x"}},
    "a is not null": {"Variable": "$.a", "IsNull": False},
    'not (a = 1 or b like "x*")': {
        "Not": {
            "Or": [
                {"Variable": "$.a", "NumericEquals": 1},
                {"Variable": "$.b", "StringMatches": "x*"},
            ]
        }
    },
}


@pytest.mark.parametrize(("words", "rule"), RULES.items())
def test_a_rule_in_words(words: str, rule: dict[str, Any]) -> None:
    assert rule_text(rule) == words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "no object 'States'"),
        ({"StartAt": "B", "States": {"A": {"Type": "Pass"}}}, "'B'"),
        ({"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "C"}}}, "'C'"),
        ({"StartAt": "A", "States": {"A": []}}, "'A' is not an object"),
    ],
)
def test_what_cannot_be_drawn(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words):
        draw(tmp_path / "a.json")


def test_states_that_nothing_leads_to_are_drawn_too() -> None:
    definition = one_state(action(), Island={"Type": "Pass", "End": True})
    assert {item.box.name for item in picture(diagram(definition)).boxes} == {"Only", "Island"}
