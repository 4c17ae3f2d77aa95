"""What somebody sees who has nothing but the run's folder, and how they stop the build from there."""

from __future__ import annotations

from .conftest import PLAIN, LocalGlobus
from .test_cancel import SLEEPER, _sleepers, _wait_for


def test_the_folder_tells_the_build_and_takes_an_abort(globus: LocalGlobus) -> None:
    path = globus.write_spec(
        {"name": "watched", **PLAIN, "commands": ["echo '<b>here</b>'", SLEEPER]}
    )
    started = globus.cli("start", path, "--json")
    run_id = started.document["run_id"]
    folder = globus.root / "runs" / run_id
    assert _wait_for(lambda: bool(_sleepers()), 120), "the build never came to its command"
    page = folder / "status.html"
    assert _wait_for(lambda: "build_image: commands" in page.read_text(), 30), page.read_text()
    text = page.read_text()
    assert 'http-equiv="refresh"' in text
    assert "&lt;b&gt;here&lt;/b&gt;" in text
    assert (folder / "result.txt").read_text() == "UNSET\n"

    (folder / "ABORT").touch()
    assert _wait_for(lambda: not _sleepers(), 60), "the build went on after the abort"
    assert globus.cli("wait", run_id, "--json").code == 1
    assert (folder / "result.txt").read_text() == "failed: The build was stopped on request.\n"
    assert 'http-equiv="refresh"' not in page.read_text()
    lines = (folder / "notifications.txt").read_text()
    assert "running build_image commands" in lines
    assert globus.leftovers() == []


def test_the_outcome_of_a_good_build_names_the_image(globus: LocalGlobus) -> None:
    container = globus.built({"name": "good", **PLAIN})
    results = [path.read_text() for path in (globus.root / "runs").glob("*/result.txt")]
    assert f"registered {container['container_id']} {container['path']}\n" in results
