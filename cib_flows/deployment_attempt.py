"""One attempt to carry out a deployment's plan, which takes back what it did when it fails."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cib_flows import allow_list
from cib_flows._version import __version__
from cib_flows.bundle import FunctionBundle
from cib_flows.deployment_plan import FunctionChange, Plan, Wanted
from cib_flows.deployment_record import (
    DeployedFlow,
    Deployment,
    RegisteredFunction,
    leftovers_path,
    load_leftovers,
    save_deployment,
    save_leftovers,
)
from cib_flows.deployment_state import deployed_flow, is_registered
from cib_flows.errors import CibFlowsError, NotFoundError
from cib_flows.flow_source import BUILD_FLOW
from cib_flows.profiles import Globus
from cib_flows.services import explained, is_transient

__all__ = ["Attempt"]


class Attempt:
    """One deployment: does what the plan says, and takes it back when it fails half-way."""

    def __init__(
        self,
        globus: Globus,
        plan: Plan,
        before: Deployment | None,
        tell: Callable[[str], None],
    ) -> None:
        self.globus = globus
        self.plan = plan
        self.before = before
        self.tell = tell
        self.registered: dict[str, RegisteredFunction] = {}
        self.undo: list[Callable[[], None]] = []
        self.kept: list[str] = []

    def run(self, force: bool) -> Deployment:
        """What is deployed afterwards; raises what failed, after taking back what was done."""
        spare = load_leftovers(self.globus)
        try:
            functions = self._functions(spare)
            after = self._after(functions)
            self._allow(after)
            after = self._put_flows(after, force)
            if after != self.before:
                save_deployment(self.globus, after)
        except BaseException as failure:
            self._take_back()
            if isinstance(failure, CibFlowsError):
                failure.hint = " ".join(filter(None, [failure.hint, self._what_is_left()]))
            raise
        save_leftovers(self.globus, {})
        return after

    def _functions(self, spare: dict[str, RegisteredFunction]) -> dict[str, RegisteredFunction]:
        functions: dict[str, RegisteredFunction] = {}
        fresh = 0
        for change in self.plan.functions:
            if change.new_sha256 is None:
                continue
            if change.why is None and change.id:
                functions[change.name] = RegisteredFunction(change.id, change.new_sha256)
                continue
            functions[change.name] = self._register(change, spare.get(change.name))
            fresh += 1
        if fresh:
            self.tell(f"registered {fresh} functions" if fresh > 1 else "registered one function")
        return functions

    def _register(
        self, change: FunctionChange, spare: RegisteredFunction | None
    ) -> RegisteredFunction:
        if (
            spare
            and spare.sha256 == change.new_sha256
            and change.why != "forced"
            and is_registered(self.globus, spare)
        ):
            function = spare
        else:
            function = _register(self.globus, self.plan.wanted.bundles[change.name])
        self.registered[change.name] = function
        # Also when this process is killed now, the next one need not register it again.
        save_leftovers(self.globus, self.registered)
        return function

    def _after(self, functions: dict[str, RegisteredFunction]) -> Deployment:
        wanted, before = self.plan.wanted, self.before
        ids = {function.id for function in functions.values()}
        retired = sorted(set(before.function_ids.values()) - ids) if before else []
        same_endpoint = before is not None and before.build_endpoint == wanted.build_endpoint
        if before and not retired:
            retired = [identifier for identifier in before.retired if identifier not in ids]
        return Deployment(
            flow_id=self.plan.flow_id or "",
            flow_sha256=wanted.digest({name: f.id for name, f in functions.items()}),
            build_endpoint=wanted.build_endpoint,
            run_endpoint=wanted.run_endpoint,
            functions=functions,
            roles=wanted.roles,
            worker=before.worker if before and same_endpoint else {},
            given_roles=wanted.given_roles,
            subscription_id=wanted.subscription_id,
            data_access=wanted.data_access,
            retired=retired,
            cib_flows=before.cib_flows if before and self.plan.changes_nothing else __version__,
        )

    def _allow(self, after: Deployment) -> None:
        """The endpoint must allow the new functions before the flow calls them."""
        home, globus = self.globus.home, self.globus
        if home is None or after.build_endpoint != globus.build_endpoint:
            return
        if not (home / "endpoint").is_dir():
            return
        text = allow_list.write_allow_list(home, after, globus.record_path)
        self.undo.append(lambda: allow_list.restore(home, text))

    def _put_flows(self, after: Deployment, force: bool) -> Deployment:
        ids = after.function_ids
        put = {
            name: DeployedFlow(
                self._put_flow(name, wanted, wanted.document(ids), wanted.digest(ids), force),
                wanted.digest(ids),
                wanted.roles,
                wanted.given_roles,
            )
            for name, wanted in self.plan.wanted.flows.items()
        }
        return replace(after, flow_id=put.pop(BUILD_FLOW).flow_id, further=put)

    def _put_flow(
        self, name: str, wanted: Wanted, document: dict[str, Any], sha256: str, force: bool
    ) -> str:
        """Creates or updates one flow; returns its id."""
        subscription = {"subscription_id": wanted.subscription_id} if wanted.subscription_id else {}
        change = self.plan.flows[name]
        was = self.before.flows.get(name) if self.before else None
        if change.action == "create" or was is None:
            return self._create_flow({**document, **subscription, **wanted.roles})
        flow_id = was.flow_id
        if change.action == "keep" and sha256 == was.flow_sha256:
            return flow_id
        # Roles that nobody changed here are left alone: an administrator may have set others in
        # the web app.
        changed = {
            role: names
            for role, names in wanted.roles.items()
            if force or names != was.roles.get(role, [])
        }
        old = deployed_flow(self.globus, flow_id) or {}
        try:
            self._update(flow_id, {**document, **subscription, **changed})
        except CibFlowsError as failure:
            if not (is_transient(failure) and self._is_in_force(flow_id, document)):
                raise
        put_back = {key: old[key] for key in (*document, *changed) if key in old}
        self.undo.append(lambda: self._update(flow_id, put_back))
        self.tell(f"updated the flow {flow_id}")
        return flow_id

    def _create_flow(self, whole: dict[str, Any]) -> str:
        self.globus.flows_pacer.wait()
        try:
            with explained("create the flow"):
                created = self.globus.flows.create_flow(**whole)
        except CibFlowsError as failure:
            if is_transient(failure):
                failure.hint = (
                    "The answer was lost: look in the web app whether a flow called "
                    f"'{whole['title']}' was created all the same, and delete it."
                )
            raise
        flow_id = str(created["id"])
        self.undo.append(lambda: self._delete_flow(flow_id))
        self.tell(f"created the flow {flow_id}")
        return flow_id

    def _update(self, flow_id: str, changes: dict[str, Any]) -> None:
        self.globus.flows_pacer.wait()
        with explained("update the flow"):
            self.globus.flows.update_flow(flow_id, **changes)

    def _delete_flow(self, flow_id: str) -> None:
        self.globus.flows_pacer.wait()
        with explained("delete the flow"):
            self.globus.flows.delete_flow(flow_id)

    def _is_in_force(self, flow_id: str, document: dict[str, Any]) -> bool:
        """Whether an update whose answer was lost has arrived; when nobody can say, it may have,
        and the functions that it names must not be deleted.
        """
        try:
            flow = deployed_flow(self.globus, flow_id)
        except CibFlowsError:
            self.kept = list(self.registered)
            return False
        return flow is not None and flow.get("definition") == document["definition"]

    def _take_back(self) -> None:
        for step in reversed(self.undo):
            try:
                step()
            except (CibFlowsError, OSError):
                # the flow may still name what was registered here
                self.kept = list(self.registered)
        for name, function in list(self.registered.items()):
            if name in self.kept:
                continue
            try:
                self.globus.compute_pacer.wait()
                with explained(f"delete the function {name}"):
                    self.globus.compute_v2.delete_function(function.id)
            except NotFoundError:
                pass
            except CibFlowsError:
                self.kept.append(name)
                continue
            del self.registered[name]
        try:
            save_leftovers(self.globus, self.registered)
        except OSError:
            pass  # the disk that failed the deployment fails this too; nothing refers to them

    def _what_is_left(self) -> str:
        if not self.kept:
            return "Nothing was changed: what this attempt had done was taken back."
        return (
            f"Registered functions could not be deleted again ({', '.join(sorted(self.kept))}); "
            f"{leftovers_path(self.globus)} notes them, and the next attempt uses them."
        )


def _register(globus: Globus, bundle: FunctionBundle) -> RegisteredFunction:
    bundle.require_python()
    globus.compute_pacer.wait()
    with explained(f"register the function {bundle.name}"):
        answer = globus.compute.register_function(
            {
                "function_name": bundle.name,
                "function_code": bundle.source,
                # The service wraps text by itself, so that any Python version can run it.
                "serialized": False,
                "meta": {"python_version": platform.python_version(), "sdk_version": None},
                "description": f"cib-flows {bundle.name}, sha256 {bundle.sha256}",
            }
        )
    return RegisteredFunction(str(answer["function_uuid"]), bundle.sha256)
