"""The whole flow with its builds as Slurm jobs, and what becomes of a run whose job does not end well."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from cib_flows.profiles import connect
from cib_flows.tasks import call_function

from .conftest import Cluster, slurm, until

PLAIN: dict[str, Any] = {"base": {"image": "python:3.11-slim"}, "worker": "none"}
SLEEPER = {**PLAIN, "commands": ["echo now it sleeps", "sleep 600"]}
WHERE = '''
def where():
    """Says in which job and which image it runs."""
    import os, sys
    return {
        "job": os.environ.get("SLURM_JOB_ID"),
        "processors": os.environ.get("SLURM_CPUS_ON_NODE"),
        "image": os.environ.get("APPTAINER_CONTAINER"),
        "python": list(sys.version_info[:2]),
        "site": os.environ.get("CIB_FLOWS_SITE"),
        "secrets": [name for name in os.environ if "SECRET" in name],
    }
'''


def test_builds_and_functions_are_jobs(cluster: Cluster) -> None:
    """Build, verify, register; then a function in the image as another job."""
    run_id = cluster.start({"name": "batch", "base": {"image": "python:3.11-slim"}})
    building = until(lambda: cluster.jobs("build"), 60)
    assert len(building) == 1, "the build was not submitted to Slurm"
    answer = cluster.globus.cli("wait", run_id, "--json")
    assert answer.code == 0, answer.output + answer.errors
    found = cluster.globus.cli("containers", "show", "batch", "--json").document["container"]

    globus = connect("local", str(cluster.globus.home))
    registered = globus.compute.register_function(
        {"function_name": "where", "function_code": WHERE, "serialized": False}
    )
    how = found["executor"]
    said = call_function(
        globus, "where", registered["function_uuid"], how["endpoint_id"],
        how["user_endpoint_config"], {},
    )  # fmt: skip
    assert said["image"] == found["path"]
    assert said["python"] == [3, 11]
    assert said["job"] not in (None, building[0])
    assert said["secrets"] == []
    assert cluster.globus.leftovers() == []
    # copies that srun starts, each in a container of its own
    words = ("containers", "exec", "--ranks", "2", "batch", "--", "sh", "-c")
    ranks = cluster.globus.cli(*words, "echo rank $SLURM_PROCID of $SLURM_NTASKS")
    assert ranks.code == 0, ranks.output + ranks.errors
    assert sorted(ranks.output.splitlines()) == ["rank 0 of 2", "rank 1 of 2"]
    # the job's workers wait for more, and hold their image
    untagged = cluster.globus.cli("containers", "untag", "batch:latest")
    assert untagged.code == 0, untagged.errors
    words = ("containers", "remove", found["container_id"], "--force", "--json")
    refused = cluster.globus.cli(*words).document["error"]
    assert (refused["code"], "workers on" in refused["message"]) == ("in_use", True)
    slurm("scancel", str(said["job"]))
    larger = call_function(
        globus, "where", registered["function_uuid"], how["endpoint_id"],
        {**how["user_endpoint_config"], "cores": 2}, {},
    )  # fmt: skip
    assert (said["processors"], larger["processors"]) == ("1", "2")
    slurm("scancel", str(larger["job"]))
    assert until(lambda: cluster.globus.cli(*words).code == 0, 60), "a lease outlives its job"


def start_sleeping(cluster: Cluster, name: str) -> tuple[str, str]:
    """A run whose build has come to its endless command; its id and its job's."""
    run_id = cluster.start({"name": name, **SLEEPER})
    assert until(lambda: "now it sleeps" in cluster.build_log(run_id), 120), cluster.build_log(
        run_id
    )
    (job,) = [job for job in cluster.jobs("build") if cluster.state(job) == "RUNNING"]
    return run_id, job


def is_clean(cluster: Cluster) -> bool:
    return bool(until(lambda: not cluster.globus.leftovers(), 60))


def assert_says_that_the_job_was_lost(cluster: Cluster, failure: dict[str, Any]) -> None:
    assert failure["code"] == "worker_lost"
    assert failure["failed_step"] == "build_image"
    assert failure["sentence"].startswith(
        "The image could not be built: the batch job or worker ended"
    )
    assert failure["sentence"].count(". ") == 0
    assert is_clean(cluster), cluster.globus.leftovers()


def test_scancel_ends_in_one_sentence_and_a_clean_folder(cluster: Cluster) -> None:
    run_id, job = start_sleeping(cluster, "cancelled")
    slurm("scancel", job)
    assert_says_that_the_job_was_lost(cluster, cluster.failure(run_id))


def test_a_node_that_goes_down_ends_in_one_sentence(cluster: Cluster) -> None:
    node = socket.gethostname().split(".")[0]
    run_id, job = start_sleeping(cluster, "downed")
    try:
        done = subprocess.run(
            ["scontrol", "update", f"nodename={node}", "state=down", "reason=test"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            slurm("scancel", job)
            pytest.skip("this account may not take the node down")
        failure = cluster.failure(run_id)
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    assert_says_that_the_job_was_lost(cluster, failure)
    assert until(lambda: "idle" in slurm("sinfo", "-h", "-o", "%t"), 60)


def test_a_draining_node_finishes_its_build_and_begins_no_other(
    start_cluster: Callable[..., Cluster],
) -> None:
    """A build under way goes on; the next one waits in the queue, and a cancel leaves nothing of it."""
    cluster = start_cluster(edit={"max_idletime: 120": "max_idletime: 2"})
    node = socket.gethostname().split(".")[0]
    short = {**PLAIN, "commands": ["echo now it sleeps", "sleep 5"]}
    run_id = cluster.start({"name": "drained", **short})
    assert until(lambda: "now it sleeps" in cluster.build_log(run_id), 120)
    done = subprocess.run(
        ["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("this account may not drain the node")
    try:
        answer = cluster.globus.cli("wait", run_id, "--json")
        assert answer.code == 0, answer.output + answer.errors
        assert until(lambda: not cluster.jobs("build"), 60), "an idle job does not end"

        waiting = cluster.start({"name": "queued", **short})
        job = until(lambda: cluster.jobs("build"), 60)[0]
        assert cluster.state(job) == "PENDING"
        assert cluster.globus.cli("cancel", waiting, "--json").code == 0
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    assert is_clean(cluster), cluster.globus.leftovers()
    assert cluster.build_log(waiting) == ""


def test_a_build_stops_before_its_jobs_walltime_does(start_cluster: Callable[..., Cluster]) -> None:
    """The template exports the job's end, so the build itself says that it was too slow."""
    cluster = start_cluster(walltime="00:05:00", limit_s=170)
    text = cluster.globus.home / "endpoint" / "user_config_template.yaml.j2"
    # a job of two minutes and a site that would allow more
    text.write_text(
        text.read_text()
        .replace('walltime: "00:05:00"', 'walltime: "00:04:00"')
        .replace("$(date +%s) + 300", "$(date +%s) + 200")
    )
    run_id = cluster.start({"name": "slow", **SLEEPER})
    failure = cluster.failure(run_id)
    assert failure["code"] == "time_limit"
    assert failure["sentence"].endswith("seconds because its batch job ends.")
    assert is_clean(cluster)


def test_a_job_killed_by_its_walltime_ends_in_one_sentence(
    start_cluster: Callable[..., Cluster],
) -> None:
    """Where the job's end is not known to the build, Slurm kills it."""
    cluster = start_cluster(edit={"export CIB_JOB_END_S": "export NOT_KNOWN"})
    text = cluster.globus.home / "endpoint" / "user_config_template.yaml.j2"
    text.write_text(text.read_text().replace('walltime: "00:20:00"', 'walltime: "00:01:00"'))
    run_id, _ = start_sleeping(cluster, "killed")
    assert_says_that_the_job_was_lost(cluster, cluster.failure(run_id))
