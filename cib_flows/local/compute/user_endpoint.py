"""One user endpoint process: the real engine of one configuration, fed by the server over pipes.

``python -m cib_flows.local.compute.user_endpoint`` is started by the server only. Its standard
input brings ``configure`` and then ``task`` messages; the end of that stream, however it comes
about, is the order to shut down. What the Globus Compute endpoint package does between the web
service and an engine is done here in the same order and with the package's own code: validate the
options against the schema, render the template, build the engine, check each function against the
allow-list, submit.
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

__all__ = ["main"]

SHUTDOWN_LIMIT = 10.0  # for an engine to end its workers by itself
TERMINATE_LIMIT = 3.0  # between SIGTERM and SIGKILL for whatever is left


class Refused(Exception):
    """The configuration was refused; one sentence."""


class NotStarted(Refused):
    """The configuration was good, but its engine did not start; who knows what it left behind."""


class Channel:
    """The pipes to the server, kept away from the prints of users' functions."""

    def __init__(self) -> None:
        self._pipes = (os.dup(0), os.dup(1))
        self._reader = os.fdopen(self._pipes[0], "rb")
        self._writer = os.fdopen(self._pipes[1], "wb", buffering=0)
        self._lock = threading.Lock()
        self._nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(self._nothing, 0)
        os.dup2(2, 1)
        # Pool workers are forked: while one held a pipe, the server would not learn of our end.
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        for pipe in self._pipes:
            os.dup2(self._nothing, pipe, inheritable=False)

    def receive(self) -> framing.Message | None:
        return framing.read(self._reader)

    def send(self, message: framing.Message) -> None:
        data = memoryview(framing.encode(message))
        with self._lock:
            try:
                while data:
                    data = data[self._writer.write(data) :]
            except BrokenPipeError:
                pass  # the server is gone; the end of standard input says so too


class UserEndpoint:
    """An engine, and the tasks it has under way."""

    def __init__(self, channel: Channel, order: framing.Message) -> None:
        self._channel = channel
        self._closing = threading.Event()
        self._endpoint_id = str(order["endpoint_id"])
        run_dir = Path(order["run_dir"])
        self._config = _load_config(Path(order["endpoint_dir"]), order)
        self._engine = self._config.engine
        try:
            self._engine.start(endpoint_id=_uuid(self._endpoint_id), run_dir=str(run_dir))
        except Exception as problem:
            raise NotStarted(f"The engine did not start: {_one_line(problem)}") from problem

    def description(self) -> framing.Message:
        soft = self._config.idle_heartbeats_soft * self._config.heartbeat_period
        return {"op": "ready", "engine": type(self._engine).__name__, "idle_after_s": soft or None}

    def submit(self, message: framing.Message) -> None:
        if self._closing.is_set():
            self._channel.send({"op": "returned", "task_id": message["task_id"]})
            return
        from globus_compute_common.messagepack import pack
        from globus_compute_common.messagepack.message_types import Task
        from globus_compute_endpoint.engines.base import GCFuture

        task_id, function_id = message["task_id"], message["function_id"]
        future = GCFuture(task_id, function_id=function_id)
        future.add_done_callback(lambda done: self._report(task_id, done))
        allowed = self._config.allowed_functions
        if allowed is not None and function_id not in allowed:
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

    def _refuse(self, future: Any, code: str, sentence: str) -> None:
        future.set_result(_failure(str(future.gc_task_id), code, sentence))

    def _report(self, task_id: str, done: Any) -> None:
        try:
            packed: bytes = done.result()
        except Exception as problem:
            packed = _failure(
                task_id, "UNKNOWN_TASK_FAILURE", f"Unknown task exception: {problem!r}"
            )
        self._channel.send({"op": "result", "task_id": task_id, "result": packed[1:].decode()})
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
    while (order := channel.receive()) is not None:
        run_dir = Path(order["run_dir"])
        run_dir.mkdir(parents=True, exist_ok=True)
        log = os.open(run_dir / "endpoint.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.chdir(run_dir)
        try:
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
    # The slow part (about a second); a spare process does it before it is needed.
    import globus_compute_endpoint.endpoint.config.utils
    import globus_compute_endpoint.engines  # noqa: F401

    endpoint = _configured(channel)
    if endpoint is None:
        return 0
    channel.send(endpoint.description())
    while (message := channel.receive()) is not None:
        if message["op"] == "task":
            endpoint.submit(message)
    endpoint.shutdown()
    _end_leftovers()
    return 0


if __name__ == "__main__":
    sys.exit(main())
