"""One user endpoint process: the real engine of one configuration, fed by the server over pipes.

``python -m cib_flows.local.compute.user_endpoint`` is started by the server only. Its standard
input brings ``configure`` and then ``task`` messages, until ``shutdown``. When the server vanishes
while tasks are under way, they go on: the next server finds this process by the socket in its run
folder, and learns what became of them. What the Globus Compute endpoint package does between the
web service and an engine is done here in the same order and with the package's own code: validate
the options against the schema, render the template, build the engine, check each function against
the allow-list, submit.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cib_flows.local.compute import framing
from cib_flows.local.compute.channel import Channel
from cib_flows.quick_start import load_jsonschema

__all__ = ["main"]

SHUTDOWN_LIMIT = 10.0  # for an engine to end its workers by itself
TERMINATE_LIMIT = 3.0  # between SIGTERM and SIGKILL for whatever is left


class Refused(Exception):
    """The configuration was refused; one sentence."""


class NotStarted(Refused):
    """The configuration was good, but its engine did not start; who knows what it left behind."""


class UserEndpoint:
    """An engine, and the tasks it has under way."""

    def __init__(self, channel: Channel, order: framing.Message) -> None:
        self._channel = channel
        self._closing = threading.Event()
        self._under_way: set[str] = set()
        self._unconfirmed: dict[str, framing.Message] = {}  # results the server may not have kept
        self._lock = threading.Lock()
        self._endpoint_id = str(order["endpoint_id"])
        run_dir = Path(order["run_dir"])
        self._order = order
        self._config = _load_config(Path(order["endpoint_dir"]), order)
        self._engine = self._config.engine
        try:
            self._engine.start(endpoint_id=_uuid(self._endpoint_id), run_dir=str(run_dir))
        except Exception as problem:
            raise NotStarted(f"The engine did not start: {_one_line(problem)}") from problem

    def description(self) -> framing.Message:
        soft = self._config.idle_heartbeats_soft * self._config.heartbeat_period
        return {"op": "ready", "engine": type(self._engine).__name__, "idle_after_s": soft or None}

    def idle(self) -> bool:
        """Whether a server that vanished left nothing here that the next one would want."""
        with self._lock:
            return not self._under_way and not self._unconfirmed

    def under_way(self) -> bool:
        with self._lock:
            return bool(self._under_way)

    def report_all(self) -> None:
        """Tell a new server what this process was given, and the results that the last one may not
        have kept."""
        with self._lock:
            known = [*self._under_way, *self._unconfirmed]
            self._channel.send({**self.description(), "op": "hello", "tasks": known})
            for message in self._unconfirmed.values():
                self._channel.send(message)
        if self._closing.is_set():
            self._channel.send({"op": "closing"})

    def confirm(self, task_id: str) -> None:
        """The server has kept the result."""
        with self._lock:
            self._unconfirmed.pop(task_id, None)

    def submit(self, message: framing.Message) -> None:
        if self._closing.is_set():
            self._channel.send({"op": "returned", "task_id": message["task_id"]})
            return
        from globus_compute_common.messagepack import pack
        from globus_compute_common.messagepack.message_types import Task
        from globus_compute_endpoint.engines.base import GCFuture

        task_id, function_id = message["task_id"], message["function_id"]
        with self._lock:
            self._under_way.add(task_id)
        future = GCFuture(task_id, function_id=function_id)
        future.add_done_callback(lambda done: self._report(task_id, done))
        if not self._allows(function_id):
            self._refuse(
                future,
                "FUNCTION_NOT_ALLOWED",
                f"Function {function_id} not permitted on endpoint {self._endpoint_id}",
            )
            return
        try:
            self._engine.submit(
                task_f=future,
                packed_task=pack(Task(task_id=task_id, task_buffer=message["buffer"])),
                resource_specification=message.get("resource_specification") or {},
                result_serializers=message.get("result_serializers") or [],
            )
        except Exception as problem:
            self._refuse(
                future, "RemoteExecutionError", f"Failed to start task: {_one_line(problem)}"
            )

    def _allows(self, function_id: str) -> bool:
        """Whether the allow-list has the function; a deployment may have added it since this process
        began."""
        allowed = self._config.allowed_functions
        if allowed is None or function_id in allowed:
            return True
        try:
            fresh = _load_config(Path(self._order["endpoint_dir"]), self._order)
        except Refused:
            return False
        self._config.allowed_functions = fresh.allowed_functions
        return fresh.allowed_functions is None or function_id in fresh.allowed_functions

    def _refuse(self, future: Any, code: str, sentence: str) -> None:
        future.set_result(_failure(str(future.gc_task_id), code, sentence))

    def _report(self, task_id: str, done: Any) -> None:
        try:
            packed: bytes = done.result()
        except Exception as problem:
            packed = _failure(
                task_id, "UNKNOWN_TASK_FAILURE", f"Unknown task exception: {problem!r}"
            )
        message = {"op": "result", "task_id": task_id, "result": packed[1:].decode()}
        with self._lock:
            self._under_way.discard(task_id)
            self._unconfirmed[task_id] = message
            self._channel.send(message)
        if self._is_broken() and not self._closing.is_set():
            # A pool that lost a worker, or an engine whose blocks fail, takes no more tasks: make
            # room for a fresh process.
            self._closing.set()
            self._channel.send({"op": "closing"})

    def _is_broken(self) -> bool:
        executor = getattr(self._engine, "executor", None)
        return bool(
            getattr(self._engine, "executor_exception", None) or getattr(executor, "_broken", None)
        )

    def shutdown(self) -> None:
        worker = threading.Thread(target=self._engine.shutdown, daemon=True)
        worker.start()
        worker.join(SHUTDOWN_LIMIT)


def _load_config(folder: Path, order: framing.Message) -> Any:
    """The configuration that the endpoint package makes of the folder's files and the caller's
    options."""
    import jinja2
    import jsonschema
    from globus_compute_endpoint.endpoint.config.config import UserEndpointConfig
    from globus_compute_endpoint.endpoint.config.utils import (
        load_config_yaml,
        load_user_config_schema,
        load_user_config_template,
        render_config_user_template,
    )
    from globus_compute_endpoint.endpoint.identity_mapper import MappedPosixIdentity

    template_path = folder / "user_config_template.yaml.j2"
    mapped = MappedPosixIdentity(
        local_user_record=pwd.getpwuid(os.getuid()),
        globus_identity_candidates=[],
        matched_identity=order["identity_id"],
    )
    try:
        parent = load_config_yaml((folder / "config.yaml").read_text("utf-8"))
        text = render_config_user_template(
            parent,
            load_user_config_template(template_path),
            template_path,
            mapped,
            load_user_config_schema(folder / "user_config_schema.json"),
            order["user_endpoint_config"],
            order["user_runtime"],
        )
        (Path(order["run_dir"]) / "config.yaml").write_text(text, "utf-8")
        config = load_config_yaml(text)
    except jsonschema.ValidationError as problem:
        where = ".".join(["user_endpoint_config", *map(str, problem.absolute_path)])
        raise Refused(f"{where}: {_one_line(problem.message)}") from problem
    except (jinja2.TemplateError, ValueError) as problem:
        raise Refused(f"user_endpoint_config: {_one_line(problem)}") from problem
    except Exception as problem:
        sentence = _one_line(getattr(problem, "message", None) or problem)
        raise Refused(f"The endpoint's configuration does not load: {sentence}") from problem
    if not isinstance(config, UserEndpointConfig) or config.engine is None:
        raise Refused("The endpoint's template renders no engine.")
    return config


def _failure(task_id: str, code: str, sentence: str) -> bytes:
    body = {
        "message_type": "result",
        "data": {
            "task_id": task_id,
            "data": sentence,
            "error_details": {"code": code, "user_message": sentence},
            "task_statuses": [],
        },
    }
    return b"\x01" + json.dumps(body).encode()


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:2000] or type(problem).__name__


def _uuid(text: str) -> Any:
    import uuid

    return uuid.UUID(text)


def _end_leftovers() -> None:
    """End what still runs in this process's group: pool workers, and the programs that functions
    started."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    group = os.getpgrp()
    if group != os.getpid():
        return  # not a leader: the group holds processes that are not ours
    os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + TERMINATE_LIMIT
    while time.monotonic() < deadline:
        try:
            child, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if child == 0:
            time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)  # and with them this process, whose work is done


def _configured(channel: Channel) -> UserEndpoint | None:
    """The endpoint of the first configuration that is accepted; None when there is none."""
    while (order := channel.receive()) is not None and order["op"] == "configure":
        run_dir = Path(order["run_dir"])
        run_dir.mkdir(parents=True, exist_ok=True)
        log = os.open(run_dir / "endpoint.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.chdir(run_dir)
        try:
            channel.listen()
            return UserEndpoint(channel, order)
        except NotStarted as failure:
            channel.send({"op": "refused", "message": str(failure)})
            return None
        except Refused as refusal:
            # Nothing was begun: this process is as good as new for another configuration.
            os.chdir("/")
            shutil.rmtree(run_dir, ignore_errors=True)
            channel.send({"op": "refused", "message": str(refusal), "unused": True})
    return None


def main() -> int:
    channel = Channel()
    # Python took its path from it already; images and user programs must not inherit it.
    os.environ.pop("PYTHONPATH", None)
    # The slow part (about a second); a spare process does it before it is needed. What is left out is there for the
    # functions, whose processes are copies of this one.
    load_jsonschema()
    import globus_compute_endpoint.endpoint.config.utils
    import globus_compute_endpoint.engines  # noqa: F401

    endpoint = _configured(channel)
    if endpoint is None:
        return 0
    channel.send(endpoint.description())
    while True:
        message = channel.receive()
        if message is None:
            # The server is gone without a word. With nothing under way, so is this process.
            if endpoint.idle() or not channel.wait_for_server(endpoint.under_way):
                break
            endpoint.report_all()
        elif message["op"] == "task":
            endpoint.submit(message)
        elif message["op"] == "kept":
            endpoint.confirm(message["task_id"])
        elif message["op"] == "shutdown":
            break
    endpoint.shutdown()
    _end_leftovers()
    return 0


if __name__ == "__main__":
    sys.exit(main())
