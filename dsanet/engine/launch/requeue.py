"""Ask Slurm to run the current job again.

The batch scripts run this file by its path, with the node's own Python: it imports the standard
library alone and keeps to what Python 3.6 knows.
"""

import os
import subprocess
import sys
from typing import NamedTuple


class Outcome(NamedTuple):
    """Whether Slurm will run the job again, and one line for the log."""

    requeued: bool
    message: str


def requeue(limit: int) -> Outcome:
    """Requeue the current Slurm job.

    A task of an array job is requeued by array and task number: the plain id of the last task is
    the id of the whole array. A job that was restarted `limit` times is not requeued.
    """
    env = os.environ
    job = env.get("SLURM_JOB_ID")
    if job is None:
        return Outcome(False, "not under Slurm: run the same command again to continue")
    if "SLURM_ARRAY_JOB_ID" in env:
        job = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(env)
    restarts = int(env.get("SLURM_RESTART_COUNT", 0))
    if restarts >= limit:
        return Outcome(
            False,
            f"job {job} was restarted {restarts} times and is not requeued: the limit is {limit} "
            "(runtime.max_requeues)",
        )
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Outcome(False, f"cannot requeue job {job}: {error}")
    if done.returncode != 0:
        reason = done.stdout.decode(errors="replace").strip()
        return Outcome(False, f"cannot requeue job {job}: {reason}")
    return Outcome(True, f"job {job} requeued")


if __name__ == "__main__":
    outcome = requeue(int(sys.argv[1]))
    print(outcome.message, flush=True)
    sys.exit(0 if outcome.requeued else 1)
