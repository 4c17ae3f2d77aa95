"""Starts user endpoint processes.

Starting Python and the endpoint package takes about a second, so one spare process is kept that has
that behind it and only waits to be told its configuration.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from cib_flows.local.compute.lines import Line
from cib_flows.local.home import Home
from cib_flows.local.process import python_environment

__all__ = ["Launcher"]

SPARE_LIFETIME = 600.0

# What may not reach functions and images: our own credentials, and host settings that change how
# Apptainer or a Python inside an image behaves.
_SCRUBBED_PREFIXES = ("APPTAINER", "SINGULARITY", "GLOBUS_", "CIB_FLOWS_", "PYTHON")


class Launcher:
    """Starts processes for the endpoint of ``home``."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._spare: Line | None = None
        self._spare_timer: asyncio.TimerHandle | None = None
        self._stopped = False

    async def take(self) -> Line:
        """A process that waits for its configuration: the spare one, or a new one."""
        return self._take_spare() or await self._launch()

    async def warm(self) -> None:
        """Have a spare process; nothing happens when there is one."""
        if self._spare is not None:
            return
        spare = await self._launch()
        if not self.keep(spare):
            spare.kill()

    def keep(self, spare: Line) -> bool:
        """Keep a started process as the spare one, unless there is one by now, or nobody needs
        it."""
        if self._spare is not None or self._stopped:
            return False
        self._spare = spare
        self._spare_timer = asyncio.get_running_loop().call_later(SPARE_LIFETIME, self._drop_spare)
        return True

    def stop(self) -> None:
        """End the spare process, and keep none from now on."""
        self._stopped = True
        self._drop_spare()

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

    def _take_spare(self) -> Line | None:
        spare, self._spare = self._spare, None
        if self._spare_timer is not None:
            self._spare_timer.cancel()
        return spare if spare is not None and spare.alive else None

    def _drop_spare(self) -> None:
        spare = self._take_spare()
        if spare is not None:
            spare.kill()
