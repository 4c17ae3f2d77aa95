"""The Transfer service's documents, shaped as its API shows them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from cib_flows.local.transfer.collections import Collection, Collections
from cib_flows.local.transfer.errors import TransferError
from cib_flows.local.transfer.store import TaskRow

__all__ = ["endpoint_document", "event_document", "task_document", "timestamp"]


def timestamp(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(int(moment), timezone.utc).isoformat()


def endpoint_document(collection: Collection, owner: str) -> dict[str, Any]:
    return {
        "DATA_TYPE": "endpoint",
        "id": collection.id,
        "display_name": collection.name,
        "canonical_name": f"local#{collection.name}",
        "description": f"The folder {collection.path} on this machine",
        "entity_type": "GCSv5_mapped_collection",
        "owner_id": owner,
        "owner_string": f"{owner}@clients.auth.globus.org",
        "organization": None,
        "default_directory": "/",
        "public": False,
        "is_globus_connect": False,
        "gcp_connected": None,
        "gcp_paused": None,
        "host_endpoint_id": None,
        "host_path": None,
        "disable_verify": False,
        "force_verify": False,
        "force_encryption": False,
        "high_assurance": False,
        "mfa_required": False,
        "non_functional": False,
        "activated": True,
        "expires_in": -1,
        "subscription_id": None,
        "shareable": False,
        "acl_available": False,
        "acl_editable": False,
        "my_effective_roles": ["administrator"],
        "DATA": [],
        **_OF_OLDER_ENDPOINTS,
    }


# The service's documents still have these, whatever the collection is.
_OF_OLDER_ENDPOINTS: dict[str, Any] = {
    "username": None,
    "french_english_bilingual": False,
    "globus_connect_setup_key": None,
    "s3_url": None,
    "s3_owner_activated": False,
    "disable_anonymous_writes": False,
    "myproxy_server": None,
    "myproxy_dn": None,
    "non_functional_endpoint_display_name": None,
    "non_functional_endpoint_id": None,
    "oauth_server": None,
    "expire_time": None,
    "in_use": False,
}


def _name(collections: Collections, collection_id: str | None) -> str | None:
    try:
        return collections.get(collection_id).name if collection_id else None
    except TransferError:
        return None  # the collection was removed since


def task_document(task: TaskRow, collections: Collections) -> dict[str, Any]:
    request, progress = task.request, task.progress
    is_delete = task.type == "DELETE"
    source = request.get("endpoint") if is_delete else request.get("source_endpoint")
    destination = None if is_delete else request.get("destination_endpoint")
    succeeded = progress.get("subtasks_succeeded", 0)
    total = progress.get("subtasks_total", 0)
    elapsed = max(1.0, (task.completed or task.created) - task.created)
    size = progress.get("bytes_transferred", 0)
    return {
        "DATA_TYPE": "task",
        "task_id": task.id,
        "type": task.type,
        "status": task.status,
        "label": request.get("label"),
        "owner_id": task.owner,
        "username": f"u_{task.owner}",
        "command": "API 0.10",
        "request_time": timestamp(task.created),
        "completion_time": timestamp(task.completed),
        "deadline": request.get("deadline") or timestamp(task.created + 86_400),
        "source_endpoint": _name(collections, source),
        "source_endpoint_id": source,
        "source_endpoint_display_name": _name(collections, source),
        "destination_endpoint": _name(collections, destination),
        "destination_endpoint_id": destination,
        "destination_endpoint_display_name": _name(collections, destination),
        "files": progress.get("files", 0),
        "directories": progress.get("directories", 0),
        "symlinks": 0,
        "files_transferred": progress.get("files_transferred", 0),
        "files_skipped": progress.get("files_skipped", 0),
        "bytes_transferred": size,
        "bytes_checksummed": progress.get("bytes_checksummed", 0),
        "effective_bytes_per_second": int(size / elapsed),
        "subtasks_total": total,
        "subtasks_succeeded": succeeded,
        "subtasks_failed": progress.get("subtasks_failed", 0),
        "subtasks_canceled": progress.get("subtasks_canceled", 0),
        "subtasks_expired": 0,
        "subtasks_pending": total - succeeded if task.completed is None else 0,
        "subtasks_retrying": 1 if progress.get("nice_status") and task.completed is None else 0,
        "subtasks_skipped_errors": progress.get("subtasks_skipped_errors", 0),
        "faults": progress.get("faults", 0),
        "is_ok": None if task.completed is not None else not progress.get("nice_status"),
        "is_paused": False,
        "nice_status": progress.get("nice_status"),
        "nice_status_details": progress.get("nice_status_details"),
        "nice_status_expires_in": None,
        "nice_status_short_description": progress.get("nice_status"),
        "fatal_error": progress.get("fatal_error"),
        "canceled_by_admin": None,
        "canceled_by_admin_message": None,
        "history_deleted": False,
        "sync_level": request.get("sync_level"),
        "encrypt_data": bool(request.get("encrypt_data", False)),
        "verify_checksum": bool(request.get("verify_checksum", True)),
        "preserve_timestamp": bool(request.get("preserve_timestamp", False)),
        "delete_destination_extra": bool(request.get("delete_destination_extra", False)),
        "fail_on_quota_errors": bool(request.get("fail_on_quota_errors", False)),
        "skip_source_errors": bool(request.get("skip_source_errors", False)),
        "recursive_symlinks": request.get("recursive_symlinks", "ignore"),
        "filter_rules": request.get("filter_rules"),
    }


def event_document(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "DATA_TYPE": "event",
        "code": row["code"],
        "description": row["description"],
        "details": row["details"],
        "is_error": bool(row["is_error"]),
        "parent_task_id": None,
        "time": timestamp(row["time"]),
    }
