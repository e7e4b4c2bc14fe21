"""Ask Slurm to run the current job again.

The batch scripts run this file by its path, with the node's own Python: it imports the standard
library alone and runs with Python 3.6.
"""

import os
import re
import subprocess
import sys
from typing import NamedTuple


class Outcome(NamedTuple):
    """Whether Slurm will run the job again, and one line for the log."""

    requeued: bool
    message: str


def is_number(text: str) -> bool:
    """Whether a text is a whole number of at most nine digits."""
    return re.fullmatch("[0-9]{1,9}", text) is not None


def printable(text: str) -> str:
    """One line for the log: control characters become blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def requeue(limit: int) -> Outcome:
    """Requeue the current Slurm job.

    A task of an array job is requeued by array and task number: the plain id of the last task is
    the id of the whole array. A job that was restarted `limit` times is not requeued, nor is one
    whose SLURM_* variables hold something else than numbers.
    """
    env = os.environ
    job = env.get("SLURM_JOB_ID")
    if job is None:
        return Outcome(False, "not under Slurm: run the same command again to continue")
    if "SLURM_ARRAY_JOB_ID" in env:
        job = "{}_{}".format(env["SLURM_ARRAY_JOB_ID"], env.get("SLURM_ARRAY_TASK_ID", ""))
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        return Outcome(False, f"cannot requeue the job: {job!a} in SLURM_JOB_ID is not a job id")
    count = env.get("SLURM_RESTART_COUNT", "0")
    if not is_number(count):
        return Outcome(
            False,
            f"cannot requeue job {job}: SLURM_RESTART_COUNT must be a whole number, got {count!a}",
        )
    restarts = int(count)
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
        reason = printable(done.stdout.decode(errors="replace"))
        return Outcome(False, f"cannot requeue job {job}: {reason}")
    return Outcome(True, f"job {job} requeued")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not is_number(sys.argv[1]):
        print(f"error: runtime.max_requeues must be a whole number, got {sys.argv[1:]!a}")
        sys.exit(2)
    outcome = requeue(int(sys.argv[1]))
    print(outcome.message, flush=True)
    sys.exit(0 if outcome.requeued else 1)
