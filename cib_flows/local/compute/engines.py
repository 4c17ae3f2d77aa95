"""User endpoint processes: one for each distinct configuration, started on demand, ended when
idle."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from cib_flows.local.compute import framing
from cib_flows.local.compute.launcher import Launcher
from cib_flows.local.compute.lines import connect, read_passport, write_passport
from cib_flows.local.compute.user_processes import (
    ConfigurationRefused,
    EngineTask,
    UserProcess,
    configuration_key,
)
from cib_flows.local.database import DiskFull
from cib_flows.local.home import Home

__all__ = ["UserEndpoints"]

log = logging.getLogger(__name__)

START_LIMIT = 120.0
STOP_LIMIT = 15.0
REATTACH_LIMIT = 5.0
RETRY_PAUSE = 1.0
KEPT_RUN_DIRS = 50


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
        self._open: dict[str, UserProcess] = {}
        self._starting: dict[str, asyncio.Task[UserProcess]] = {}
        self._processes: set[UserProcess] = set()
        self._launcher = Launcher(home)
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
        if not self._stopped:
            self._spawn(self._launcher.warm())

    async def stop(self) -> None:
        """End every process; tasks under way are reported lost."""
        self._stopped = True
        self._launcher.stop()
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

    async def _process_for(
        self, config: Mapping[str, Any], runtime: Mapping[str, Any]
    ) -> UserProcess:
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
    ) -> UserProcess:
        if self._stopped:
            raise ConfigurationRefused("The local Globus is shutting down.")
        line = await self._launcher.take()
        run_dir = self._home.runs_dir / f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}"
        process = UserProcess(line, key=key, run_dir=str(run_dir))
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
            if answer is not None and answer.get("unused") and self._launcher.keep(line):
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
        process: UserProcess,
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
        process = UserProcess(line, key=configuration_key(passport.config), run_dir=str(folder))
        self._processes.add(process)
        known = set(hello["tasks"])
        process.tasks = {task_id: EngineTask(task_id, "", "") for task_id in known}
        self._adopt(process, hello, passport.config, passport.runtime)
        return folder.name, known

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

    def _give(self, process: UserProcess, task: EngineTask) -> None:
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

    def _give_late(self, process: UserProcess, task: EngineTask) -> None:
        if process.tasks.get(task.task_id) is not task:
            return  # the process ended meanwhile, and the task was answered for
        if process.closing:
            del process.tasks[task.task_id]
            self._on_lost(task.task_id, self._why_lost(process))
        else:
            self._give(process, task)

    def _set_idle_timer(self, process: UserProcess) -> None:
        if process.idle_after_s is not None and not process.tasks and not process.closing:
            loop = asyncio.get_running_loop()
            process.idle_timer = loop.call_later(process.idle_after_s, self._retire, process)

    def _retire(self, process: UserProcess) -> None:
        """Take a process out of use; it ends once it has read the end of its input."""
        if self._open.get(process.key) is process:
            del self._open[process.key]
        process.hang_up()

    async def _listen(
        self, process: UserProcess, config: Mapping[str, Any], runtime: Mapping[str, Any]
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

    async def _keep_result(self, process: UserProcess, message: framing.Message) -> None:
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

    def _why_lost(self, process: UserProcess) -> str:
        if self._stopped:
            return "The local Globus was stopped while this task was under way."
        return (
            "The user endpoint process ended while this task was under way "
            f"(its log: {process.run_dir}/endpoint.log)."
        )

    async def _forget(self, process: UserProcess) -> None:
        await self._ended(process)
        self._processes.discard(process)

    async def _ended(self, process: UserProcess) -> None:
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
