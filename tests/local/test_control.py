from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cib_flows.errors import ServiceError
from cib_flows.local import control
from cib_flows.local.home import Home
from cib_flows.local.process import python_environment

from .conftest import LocalGlobus, until

OwnGlobus = Callable[..., LocalGlobus]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def kill(home: Home) -> None:
    record = home.running()
    assert record is not None
    assert record.pid is not None
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: not home.is_locked())


def test_starting_again_changes_nothing(own_globus: OwnGlobus) -> None:
    first = own_globus()
    again = control.start(first.home)
    assert again.already
    assert again.record == first.home.running()


def test_a_stopped_server_says_so_and_keeps_its_port(own_globus: OwnGlobus) -> None:
    globus = own_globus()
    port = globus.home.running().port  # type: ignore[union-attr]
    assert control.stop(globus.home)
    assert globus.home.running() is None
    assert globus.home.last_record().pid is None  # type: ignore[union-attr]
    assert not control.stop(globus.home)
    assert own_globus().home.running().port == port  # type: ignore[union-attr]


def test_a_killed_server_is_not_taken_for_a_running_one(own_globus: OwnGlobus) -> None:
    globus = own_globus()
    kill(globus.home)
    assert globus.home.server_path.exists(), "its record is stale, and still there"
    assert globus.home.running() is None
    assert not control.start(globus.home, compute_port=False).already


def test_several_who_start_a_new_home_at_once_find_one_server(tmp_path: Path) -> None:
    homes = [Home(tmp_path / "home") for _ in range(4)]
    try:
        with ThreadPoolExecutor(len(homes)) as pool:
            found = list(pool.map(lambda home: control.start(home, compute_port=False), homes))
        assert len({started.record.pid for started in found}) == 1
        assert sorted(started.already for started in found) == [False, True, True, True]
        assert not list(homes[0].path.glob(".*.*")), "nothing is left of those who lost"
        globus = LocalGlobus(homes[0], homes[0].environment())
        assert globus.flows.list_flows().http_status == 200, "the server knows the written secret"
    finally:
        control.stop(homes[0])


def test_many_who_prepare_a_new_home_agree_on_its_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        clients = set(pool.map(lambda _: Home(tmp_path / "home").prepare(), range(32)))
    assert clients == {Home(tmp_path / "home").client()}


def test_a_pid_of_a_killed_server_that_is_anothers_now_is_left_alone(
    own_globus: OwnGlobus,
) -> None:
    """A server that is just coming up must not be looked for under the number of the last one."""
    home = own_globus().home
    kill(home)
    words = ["-m", "cib_flows.local.server", "--home", str(home.path), "--no-compute-port"]
    environment = python_environment(os.environ)
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    last = home.last_record()
    assert last is not None
    home.write_record(replace(last, pid=bystander.pid))
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, env=environment)
    try:
        until(home.is_locked)
        assert control.stop(home)
        assert server.wait(30) == 0
        assert bystander.poll() is None
    finally:
        for process in (bystander, server):
            process.kill()
            process.communicate()


def test_a_start_that_is_broken_off_leaves_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")

    def interrupted(*_: object) -> None:
        until(home.is_locked)
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "_first_line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        control.start(home, compute_port=False)
    assert not home.is_locked()


def test_a_port_that_is_taken_is_named(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(ServiceError, match=f"could not listen on port {taken_port}"):
        control.start(Home(tmp_path / "home"), port=taken_port, compute_port=False)


def test_a_last_port_that_is_taken_is_replaced(own_globus: OwnGlobus, taken_port: int) -> None:
    globus = own_globus()
    record = globus.home.running()
    assert record is not None
    control.stop(globus.home)
    globus.home.write_record(type(record)(None, taken_port, None, taken_port))
    found = control.start(globus.home, compute_port=False).record
    assert taken_port not in (found.port, found.amqp_port)


def test_only_one_home_has_the_compute_port(
    local_globus: LocalGlobus, own_globus: OwnGlobus
) -> None:
    if local_globus.home.running().compute_port is None:  # type: ignore[union-attr]
        pytest.skip("port 5000 is taken by something else on this machine")
    second = own_globus(compute_port=True)
    assert second.home.running().compute_port is None  # type: ignore[union-attr]
    assert second.compute_v2.get_version().text, "by its own port it answers all the same"


def test_a_home_that_cannot_start_says_why(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.database_path.mkdir()
    with pytest.raises(ServiceError, match=r"did not come up.*unable to open database"):
        control.start(home, compute_port=False)
    assert home.running() is None
