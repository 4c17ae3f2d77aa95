"""The e-mails that the service would send about a run. The local Globus sends none, it keeps a
record."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from cib_flows.local.database import Database

from .store import RunSummary, now_text

__all__ = ["STATUSES", "Notifications", "policy_problem"]

logger = logging.getLogger(__name__)

STATUSES = ("INACTIVE", "SUCCEEDED", "FAILED")
# What the service takes when a run says nothing.
DEFAULT: Mapping[str, Any] = {"status": ["INACTIVE"]}

SCHEMA = """
CREATE TABLE IF NOT EXISTS run_notifications (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    time TEXT NOT NULL,
    status TEXT NOT NULL,
    content TEXT NOT NULL
);
"""


def policy_problem(policy: Any) -> tuple[list[str | int], str] | None:
    """Where and why ``policy`` is not a notification policy; None when it is one."""
    if not isinstance(policy, dict):
        return [], "value is not a valid dict"
    for key in policy:
        if key != "status":
            return [key], "extra fields not permitted"
    statuses = policy.get("status", [])
    if not isinstance(statuses, list):
        return ["status"], "value is not a valid list"
    for number, status in enumerate(statuses):
        if status not in STATUSES:
            return ["status", number], f"{status!r} is not one of {', '.join(STATUSES)}"
    return None


class Notifications:
    """One record for each time that a run's owner would be told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    def changed(self, run: RunSummary) -> None:
        """Note that ``run`` came to rest or to its end."""
        policy = run.submission.get("activity_notification_policy", DEFAULT)
        if run.status not in policy.get("status", DEFAULT["status"]):
            return
        label = run.submission.get("label")
        content = {
            "to": run.owner,
            "subject": f"{run.submission['flow_title']}: {label or run.id} is {run.status}",
            "run_id": run.id,
            "flow_id": run.flow_id,
            "status": run.status,
            "details": run.outcome,
        }
        self._database.execute(
            "INSERT INTO run_notifications (run_id, time, status, content) VALUES (?, ?, ?, ?)",
            (run.id, now_text(), run.status, json.dumps(content)),
        )
        logger.info("run %s: its owner would be told by e-mail that it is %s", run.id, run.status)

    def sent(self, owner: str) -> list[dict[str, Any]]:
        """What ``owner`` would have been told, newest first."""
        rows = self._database.rows("SELECT time, content FROM run_notifications ORDER BY n DESC")
        found = [{"time": row["time"], **json.loads(row["content"])} for row in rows]
        return [item for item in found if item["to"] == owner]

    def forget(self, run_id: str) -> None:
        self._database.execute("DELETE FROM run_notifications WHERE run_id = ?", (run_id,))
