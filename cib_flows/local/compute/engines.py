"""User endpoint processes: one for each distinct configuration, started on demand, ended when idle.

Starting Python and the endpoint package takes about a second, so one spare process is kept that has
that behind it and only waits to be told its configuration.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cib_flows.local.compute import framing
from cib_flows.local.compute.lines import Line, connect, read_passport, write_passport
from cib_flows.local.database import DiskFull
from cib_flows.local.home import Home
from cib_flows.local.process import python_environment

__all__ = ["ConfigurationRefused", "EngineTask", "UserEndpoints"]

log = logging.getLogger(__name__)

START_LIMIT = 120.0
STOP_LIMIT = 15.0
SPARE_LIFETIME = 600.0
REATTACH_LIMIT = 5.0
RETRY_PAUSE = 1.0
KEPT_RUN_DIRS = 50

# What may not reach functions and images: our own credentials, and host settings that change how
# Apptainer or a Python inside an image behaves.
_SCRUBBED_PREFIXES = ("APPTAINER", "SINGULARITY", "GLOBUS_", "CIB_FLOWS_", "PYTHON")


class ConfigurationRefused(Exception):
    """The endpoint's schema, template or engine refused a ``user_endpoint_config``; one
    sentence."""


@dataclass(frozen=True)
class EngineTask:
    """What an engine needs to know of a task."""

    task_id: str
    function_id: str
    buffer: str
    resource_specification: dict[str, Any] | None = None
    result_serializers: list[str] | None = None

    def message(self) -> framing.Message:
        return {
            "op": "task",
            "task_id": self.task_id,
            "function_id": self.function_id,
            "buffer": self.buffer,
            "resource_specification": self.resource_specification,
            "result_serializers": self.result_serializers,
        }


@dataclass(eq=False)
class _Process:
    """One user endpoint process, as the server sees it."""

    line: Line
    key: str = ""
    run_dir: str = ""
    engine: str = ""
    idle_after_s: float | None = None
    tasks: dict[str, EngineTask] = field(default_factory=dict)
    closing: bool = False
    idle_timer: asyncio.TimerHandle | None = None
    listener: asyncio.Task[None] | None = None

    def send(self, message: framing.Message) -> None:
        self.line.writer.write(framing.encode(message))

    def hang_up(self) -> None:
        """Order it to shut down."""
        self.closing = True
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        if not self.line.writer.is_closing():
            self.send({"op": "shutdown"})
            self.line.hang_up()


def configuration_key(config: Mapping[str, Any]) -> str:
    """The same text for the same configuration, however its keys are ordered."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


class UserEndpoints:
    """Starts user endpoint processes, hands them tasks, and passes on their results.

    ``on_result`` gets every result as the JSON text of its message; ``on_lost`` gets the id of a
    task that will never have one, and the sentence that says why; ``on_taken`` is told, before a
    process is given a task, which run folder that process has.
    """

    def __init__(
        self,
        home: Home,
        endpoint_id: str,
        identity_id: str,
        on_result: Callable[[str, str], None],
        on_lost: Callable[[str, str], None],
        on_taken: Callable[[str, str], None] = lambda task_id, run: None,
    ) -> None:
        self._home = home
        self._endpoint_id = endpoint_id
        self._identity_id = identity_id
        self._on_result = on_result
        self._on_lost = on_lost
        self._on_taken = on_taken
        self._open: dict[str, _Process] = {}
        self._starting: dict[str, asyncio.Task[_Process]] = {}
        self._processes: set[_Process] = set()
        self._spare: Line | None = None
        self._spare_timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._stopped = False

    # -- for the service -----------------------------------------------------------------------

    async def ready(self, config: Mapping[str, Any], runtime: Mapping[str, Any]) -> None:
        """Have a process for ``config``. Raises :class:`ConfigurationRefused`."""
        await self._process_for(config, runtime)

    def dispatch(
        self, config: Mapping[str, Any], runtime: Mapping[str, Any], tasks: list[EngineTask]
    ) -> None:
        """Hand ``tasks`` to the process for ``config``, starting one first if the last has
        ended."""
        process = self._open.get(configuration_key(config))
        if process is not None and not process.closing:
            for task in tasks:
                self._give(process, task)
        else:
            self._spawn(self._start_and_give(config, runtime, tasks))

    def status(self) -> dict[str, Any]:
        """Figures for the endpoint's status document."""
        outstanding = sum(len(process.tasks) for process in self._open.values())
        return {
            "managers": len(self._open),
            "total_workers": len(self._open),
            "idle_workers": sum(1 for process in self._open.values() if not process.tasks),
            "pending_tasks": 0,
            "outstanding_tasks": outstanding,
        }

    def warm(self) -> None:
        """Have a spare process ready soon; costs a second of one processor, in the background."""
        if self._spare is None and not self._stopped:
            self._spawn(self._start_spare())

    async def stop(self) -> None:
        """End every process; tasks under way are reported lost."""
        self._stopped = True
        self._drop_spare()
        for task in self._starting.values():
            task.cancel()
        processes = list(self._processes)
        for process in processes:
            process.hang_up()
        await asyncio.gather(*(self._ended(process) for process in processes))
        for background in list(self._background):
            background.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # -- processes -----------------------------------------------------------------------------

    async def _process_for(self, config: Mapping[str, Any], runtime: Mapping[str, Any]) -> _Process:
        key = configuration_key(config)
        process = self._open.get(key)
        if process is not None and not process.closing:
            return process
        starting = self._starting.get(key)
        if starting is None:
            starting = asyncio.ensure_future(self._start(key, config, runtime))
            self._starting[key] = starting
            starting.add_done_callback(lambda _: self._starting.pop(key, None))
        # Several submissions may wait for the same start: none of them may cancel it for the
        # others.
        return await asyncio.shield(starting)

    async def _start(
        self, key: str, config: Mapping[str, Any], runtime: Mapping[str, Any]
    ) -> _Process:
        if self._stopped:
            raise ConfigurationRefused("The local Globus is shutting down.")
        line = self._take_spare() or await self._launch()
        run_dir = self._home.runs_dir / f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}"
        process = _Process(line, key=key, run_dir=str(run_dir))
        self._processes.add(process)
        process.send(
            {
                "op": "configure",
                "endpoint_id": self._endpoint_id,
                "identity_id": self._identity_id,
                "endpoint_dir": str(self._home.endpoint_dir),
                "run_dir": str(run_dir),
                "user_endpoint_config": dict(config),
                "user_runtime": dict(runtime),
            }
        )
        try:
            answer = await asyncio.wait_for(framing.read_async(line.reader), START_LIMIT)
        except asyncio.TimeoutError:
            answer = {
                "op": "refused",
                "message": f"The engine did not start in {START_LIMIT:.0f} s.",
            }
        except asyncio.CancelledError:
            process.hang_up()
            self._spawn(self._forget(process))
            raise
        if answer is None or answer["op"] != "ready":
            if answer is not None and answer.get("unused") and self._keep(line):
                self._processes.discard(process)
            else:
                process.hang_up()
                self._spawn(self._forget(process))
            raise ConfigurationRefused(
                answer["message"] if answer else f"The user endpoint ended at once; see {run_dir}."
            )
        write_passport(run_dir, line.pid, config, runtime)
        self._adopt(process, answer, config, runtime)
        self._set_idle_timer(process)
        self.warm()
        return process

    def _adopt(
        self,
        process: _Process,
        answer: framing.Message,
        config: Mapping[str, Any],
        runtime: Mapping[str, Any],
    ) -> None:
        process.engine = answer["engine"]
        process.idle_after_s = answer["idle_after_s"]
        self._open[process.key] = process
        process.listener = asyncio.ensure_future(self._listen(process, config, runtime))

    async def reattach(self) -> dict[str, set[str]]:
        """Take over the processes that outlived the last server: which tasks each (by the name of
        its run folder) was given, or has results of."""
        found = await asyncio.gather(
            *(self._reattach(folder) for folder in sorted(self._home.runs_dir.iterdir()))
        )
        return dict(filter(None, found))

    async def _reattach(self, folder: Path) -> tuple[str, set[str]] | None:
        passport = read_passport(folder)
        line = await connect(folder, passport.pid) if passport is not None else None
        if passport is None or line is None:
            return None
        try:
            hello = await asyncio.wait_for(framing.read_async(line.reader), REATTACH_LIMIT)
        except asyncio.TimeoutError:
            hello = None
        if hello is None:
            log.warning("user endpoint %s does not answer; killing it", passport.pid)
            line.kill()
            return None
        process = _Process(line, key=configuration_key(passport.config), run_dir=str(folder))
        self._processes.add(process)
        known = set(hello["tasks"])
        process.tasks = {task_id: EngineTask(task_id, "", "") for task_id in known}
        self._adopt(process, hello, passport.config, passport.runtime)
        return folder.name, known

    async def _launch(self) -> Line:
        with open(self._home.log_path, "ab") as log_stream:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cib_flows.local.compute.user_endpoint",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log_stream,
                env=self._environment(),
                cwd=self._home.path,
                start_new_session=True,
            )
        return Line.of_child(child)

    def _environment(self) -> dict[str, str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_SCRUBBED_PREFIXES)
        }
        environment = python_environment(environment)
        programs = str(Path(sys.executable).parent)
        environment["PATH"] = os.pathsep.join(
            [programs, environment.get("PATH", "/usr/local/bin:/usr/bin:/bin")]
        )
        environment["CIB_FLOWS_SITE"] = str(self._home.site_path)
        return environment

    async def _start_spare(self) -> None:
        spare = await self._launch()
        if not self._keep(spare):
            spare.kill()

    def _keep(self, spare: Line) -> bool:
        """Keep a started process as the spare one, unless there is one by now, or nobody needs
        it."""
        if self._spare is not None or self._stopped:
            return False
        self._spare = spare
        self._spare_timer = asyncio.get_running_loop().call_later(SPARE_LIFETIME, self._drop_spare)
        return True

    def _take_spare(self) -> Line | None:
        spare, self._spare = self._spare, None
        if self._spare_timer is not None:
            self._spare_timer.cancel()
        return spare if spare is not None and spare.alive else None

    def _drop_spare(self) -> None:
        spare = self._take_spare()
        if spare is not None:
            spare.kill()

    # -- tasks ---------------------------------------------------------------------------------

    async def _start_and_give(
        self, config: Mapping[str, Any], runtime: Mapping[str, Any], tasks: list[EngineTask]
    ) -> None:
        try:
            process = await self._process_for(config, runtime)
        except ConfigurationRefused as refusal:
            for task in tasks:
                self._on_lost(task.task_id, str(refusal))
            return
        for task in tasks:
            self._give(process, task)

    def _give(self, process: _Process, task: EngineTask) -> None:
        process.tasks[task.task_id] = task
        if process.idle_timer is not None:
            process.idle_timer.cancel()
            process.idle_timer = None
        try:
            self._on_taken(task.task_id, Path(process.run_dir).name)
        except DiskFull as problem:
            # Unless it is noted who has the task, the next server would give it to another, too.
            log.warning("a task waits to be given: %s", problem)
            asyncio.get_running_loop().call_later(RETRY_PAUSE, self._give_late, process, task)
            return
        process.send(task.message())

    def _give_late(self, process: _Process, task: EngineTask) -> None:
        if process.tasks.get(task.task_id) is not task:
            return  # the process ended meanwhile, and the task was answered for
        if process.closing:
            del process.tasks[task.task_id]
            self._on_lost(task.task_id, self._why_lost(process))
        else:
            self._give(process, task)

    def _set_idle_timer(self, process: _Process) -> None:
        if process.idle_after_s is not None and not process.tasks and not process.closing:
            loop = asyncio.get_running_loop()
            process.idle_timer = loop.call_later(process.idle_after_s, self._retire, process)

    def _retire(self, process: _Process) -> None:
        """Take a process out of use; it ends once it has read the end of its input."""
        if self._open.get(process.key) is process:
            del self._open[process.key]
        process.hang_up()

    async def _listen(
        self, process: _Process, config: Mapping[str, Any], runtime: Mapping[str, Any]
    ) -> None:
        returned: list[EngineTask] = []
        while (message := await framing.read_async(process.line.reader)) is not None:
            if message["op"] == "closing":
                self._retire(process)
                continue
            task = process.tasks.pop(message["task_id"], None)
            if message["op"] == "returned" and task is not None:
                returned.append(task)
            elif message["op"] == "result":
                await self._keep_result(process, message)
            self._set_idle_timer(process)
        self._retire(process)
        await self._ended(process)
        self._processes.discard(process)
        for task_id in list(process.tasks):
            process.tasks.pop(task_id)
            self._on_lost(task_id, self._why_lost(process))
        if returned and not self._stopped:
            self.dispatch(config, runtime, returned)
        else:
            for task in returned:
                self._on_lost(task.task_id, self._why_lost(process))

    async def _keep_result(self, process: _Process, message: framing.Message) -> None:
        """Have a result kept, then let its process forget it. While the disk is full, wait: the
        process holds the result for as long."""
        while True:
            try:
                self._on_result(message["task_id"], message["result"])
                break
            except DiskFull as problem:
                if self._stopped:
                    return
                log.warning("a result waits to be kept: %s", problem)
                await asyncio.sleep(RETRY_PAUSE)
        process.send({"op": "kept", "task_id": message["task_id"]})

    def _why_lost(self, process: _Process) -> str:
        if self._stopped:
            return "The local Globus was stopped while this task was under way."
        return (
            "The user endpoint process ended while this task was under way "
            f"(its log: {process.run_dir}/endpoint.log)."
        )

    async def _forget(self, process: _Process) -> None:
        await self._ended(process)
        self._processes.discard(process)

    async def _ended(self, process: _Process) -> None:
        """Wait until the process is gone; kill it, and what it started, if it takes too long."""
        try:
            await asyncio.wait_for(process.line.ended(), STOP_LIMIT)
        except asyncio.TimeoutError:
            log.warning("user endpoint %s does not end; killing it", process.line.pid)
        process.line.kill()
        await process.line.reaped()
        if process.listener is not None and process.listener is not asyncio.current_task():
            await asyncio.wait([process.listener], timeout=1.0)

    def _spawn(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def remove_old_run_dirs(self) -> None:
        """Keep the newest run folders only; each holds one engine's logs."""
        folders = sorted(path for path in self._home.runs_dir.iterdir() if path.is_dir())
        for folder in folders[:-KEPT_RUN_DIRS]:
            if read_passport(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
