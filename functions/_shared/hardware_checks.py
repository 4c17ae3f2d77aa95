"""Checks of an image that need the node's hardware or an MPI start, run where the spec asks for them."""

from __future__ import annotations

import os

from .results import StepFailed, last_bytes

# What a driver leaves on a node that has one, and how Apptainer is told to lend it.
GPU_DEVICES = {"nvidia": "/dev/nvidiactl", "amd": "/dev/kfd"}
GPU_OPTIONS = {"nvidia": ["--nv"], "amd": ["--rocm"]}
GPU_COMMANDS = {
    "nvidia": "nvidia-smi -L",
    "amd": "test -r /dev/kfd && { ! command -v rocminfo > /dev/null || rocminfo > /dev/null; }",
}
GPU_MAKERS = {"nvidia": "NVIDIA", "amd": "AMD"}

NO_MPIEXEC_STATUS = 64
# Two processes on whatever the node lends: no remote shell is looked for, and one processor is enough.
MPI_SOURCE = r"""
command -v mpiexec > /dev/null || exit 64
export OMPI_MCA_plm=isolated OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_plm=ssh PRTE_MCA_plm_ssh_agent=false PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
if python3 -c 'import mpi4py' 2> /dev/null; then
    mpiexec -n 2 python3 -c 'from mpi4py import MPI; c = MPI.COMM_WORLD; print("rank", c.rank, "of", c.allreduce(1))'
else
    mpiexec -n 2 /bin/sh -c '
        echo "rank ${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-$PMIX_RANK}} of ${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-2}}"'
fi
"""


def gpu_options(kind: str | None) -> list[str]:
    """Options that lend the node's GPU to an image. Raises :class:`StepFailed` where the node has none."""
    if not kind:
        return []
    if not os.path.exists(GPU_DEVICES[kind]):
        raise StepFailed(
            "verify_gpu",
            f"The image is to be verified with an {GPU_MAKERS[kind]} GPU, and this node has no driver for one "
            f"({GPU_DEVICES[kind]} is missing).",
            "Build on an endpoint whose build nodes have such a GPU, or leave 'verify.gpu' out.",
        )
    return GPU_OPTIONS[kind]


def judge_gpu(kind: str, status: int, output: str, errors: str) -> str:
    """What the GPU's own program says of it, from running ``GPU_COMMANDS[kind]``."""
    if status != 0:
        raise StepFailed(
            "verify_gpu",
            f"The {GPU_MAKERS[kind]} GPU of the node does not work in the image (exit status {status}).",
            "The last lines say what happened; the driver's libraries must fit the image's.",
            log_tail=output + errors,
        )
    return last_bytes(output, 500)


def judge_mpi(status: int, output: str, errors: str) -> list[str]:
    """The greetings of both processes, from running ``MPI_SOURCE``."""
    if status == NO_MPIEXEC_STATUS:
        raise StepFailed(
            "verify_mpi",
            "The image has no mpiexec, so 'verify.mpi' cannot hold.",
            "Add an MPI to the spec, for instance the Debian package openmpi-bin.",
        )
    greetings = sorted(line for line in output.splitlines() if line.startswith("rank "))
    if status != 0 or greetings != ["rank 0 of 2", "rank 1 of 2"]:
        raise StepFailed(
            "verify_mpi",
            f"Two MPI processes did not find each other in the image (exit status {status}).",
            "The last lines say what mpiexec printed.",
            log_tail=output + errors,
        )
    return greetings
