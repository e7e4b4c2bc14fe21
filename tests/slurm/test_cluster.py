"""The scripts of slurm/ on a real Slurm: interrupted training equals uninterrupted training.

Nodes are namespaces of this machine, each with a local disk. Tasks are real train.py processes that
communicate over gloo. The scripts are unchanged: options of sbatch and train.py make small jobs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.lab import REPOSITORY, SHORT, Cluster, Job, Run, layout, write_video

pytestmark = pytest.mark.slurm
Train = Callable[..., Job]


@pytest.fixture(scope="module")
def limited(cluster: Cluster, uninterrupted: Run, submit, tmp_path_factory) -> Job:
    """A job that gets near its time limit on node n3, while the first tests use other nodes."""
    cluster.before_limits_are_checked(5)
    folder = tmp_path_factory.mktemp("limited")
    job = submit(folder, 1, 2, "--nodelist=n3", "--time=2", "--signal=USR1@100", extra=())

    def extend() -> None:  # so that the second start does not get near its limit
        cluster.until(lambda: cluster.info(job.id)["Restarts"] == "1", job.id)
        cluster.run("scontrol", "update", f"JobId={job.id}", "TimeLimit=30")

    threading.Thread(target=extend, daemon=True).start()
    return job


@pytest.fixture(scope="module")
def chain(cluster: Cluster, limited: Job, options, tmp_path_factory) -> tuple[Job, str]:
    """Training on 2 nodes x 2 tasks, queued by slurm/chain.sh, and the id of its evaluation."""
    folder = tmp_path_factory.mktemp("chain")
    output = cluster.run(
        "slurm/chain.sh", *layout(2, 2), f"--output={folder}/%x.log", "slurm/k400.sh",
        "--out", folder / "run", *options, *SHORT,
        EVAL_SBATCH="--nodes=1", EVAL_ARGS="--clips 2 --crops 1 --loader.threads 1",
    )  # fmt: skip
    job, evaluation = re.findall(r"job (\d+)", output)
    return Job(cluster, job, Run(folder / "run"), folder / "dsanet-k400.log"), evaluation


def test_two_nodes_of_two_tasks_train_as_one_process(chain, uninterrupted: Run) -> None:
    job, _ = chain
    job.wait()
    job.run.assert_same_training(uninterrupted)
    assert re.search(r"^0: processes: 2 x n1 .*, 2 x n2 ", job.log, re.MULTILINE)


def test_evaluation_starts_when_training_has_ended(cluster: Cluster, chain) -> None:
    job, evaluation = chain
    trained, evaluated = job.wait(), cluster.wait(evaluation)
    assert evaluated["StartTime"] >= trained["EndTime"]
    (metrics,) = job.run.folder.glob("eval*/metrics.json")
    assert json.loads(metrics.read_text())["videos"] == 10


def test_evaluation_resumes_after_a_signal(
    cluster: Cluster, options, uninterrupted: Run, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    words = ("--checkpoint", uninterrupted.folder, "--split", "train", "--batch", 1, "--out", out)
    job = cluster.run(
        "sbatch", "--parsable", *layout(1, 2), "--nodelist=n1", f"--output={tmp_path}/log",
        "slurm/eval.sh", *options[:2], *words, "--clips", 16, "--loader.threads", 1,
    ).strip()  # fmt: skip
    cluster.until(lambda: any(p.stat().st_size for p in out.glob("partial/scores-*.bin")), job)
    cluster.run("scancel", "--signal=USR1", job)
    assert cluster.wait(job)["Restarts"] == "1"
    log = (tmp_path / "log").read_text()
    (scored,) = {int(n) for n in re.findall(r"continuing: (\d+) of 96 videos", log)}
    assert 0 < scored < 96
    assert json.loads((out / "metrics.json").read_text())["videos"] == 96


def test_evaluation_is_cancelled_when_training_fails(cluster: Cluster, tmp_path: Path) -> None:
    shards = cluster.folder / "local" / "shards"  # every node has its own local disk
    cluster.run("srun", "--nodelist=n1", "mkdir", "-p", shards)
    words = ("slurm/k400.sh", "--data", shards, "--out", tmp_path / "run")
    nodes = (*layout(2, 1), "--nodelist=n[1-2]", f"--output={tmp_path}/%x.log")
    train, evaluation = re.findall(r"job (\d+)", cluster.run("slurm/chain.sh", *nodes, *words))
    cluster.wait(train, "FAILED")
    cluster.wait(evaluation, "CANCELLED")
    log = (tmp_path / "dsanet-k400.log").read_text()
    (line,) = (line for line in log.splitlines() if "error: node n2" in line)
    assert str(shards) in line
    assert "--exclude=n2" in line


def test_time_limit(limited: Job, uninterrupted: Run) -> None:
    assert limited.wait()["Restarts"] == "1"
    stops = re.findall(r"stopped by a signal after step (\d+)", limited.log)
    assert limited.resumed_at == [int(step) for step in stops]
    limited.run.assert_same_training(uninterrupted, epochs=7)


def test_signal_from_outside(cluster: Cluster, train: Train, uninterrupted: Run) -> None:
    job = train(2, 2, "--nodelist=n[1-2]")
    job.reach(7)
    for node in (1, 2):  # each has its own copy, which goes when the job ends
        assert len([*cluster.local_disk(node).rglob("*.tar")]) == 12
    cluster.run("scancel", "--signal=USR1", job.id)
    assert job.wait()["Restarts"] == "1"
    assert not [*cluster.local_disk(1).glob("job_*")]
    (step,) = job.resumed_at
    assert step >= 7
    assert job.log.count("start 1,") == job.log.count("start 2,") == 1  # one log, appended to
    job.run.assert_same_training(uninterrupted)


def test_preemption(cluster: Cluster, train: Train, uninterrupted: Run) -> None:
    job = train(2, 1, "--nodelist=n[1-2]")
    job.reach(7)
    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=urgent", "--nodelist=n[1-2]", "--exclusive",
        "--output=/dev/null", "--wrap=sleep 1",
    ).strip()  # fmt: skip
    assert cluster.wait(urgent)["JobState"] == "COMPLETED"
    assert job.wait()["Restarts"] == "1"
    (step,) = job.resumed_at
    assert step >= 7
    job.run.assert_same_training(uninterrupted)


def test_node_failure(cluster: Cluster, train: Train, uninterrupted: Run) -> None:
    job = train(2, 1, "--nodelist=n[1-2]")
    job.reach(7)
    cluster.kill_node(2)
    try:
        cluster.until(lambda: cluster.info(job.id)["Restarts"] == "1", job.id)
    finally:
        cluster.boot_node(2)
    job.wait()
    (step,) = job.resumed_at
    assert step in (5, 10)  # a periodic checkpoint
    job.run.assert_same_training(uninterrupted)


def test_a_killed_rank_ends_the_job_and_the_same_command_resumes_it(
    cluster: Cluster, train: Train, uninterrupted: Run
) -> None:
    job = train(1, 2, "--nodelist=n1")
    job.reach(7)
    pids = [int(pid) for pid in cluster.run("ip", "netns", "pids", "dsanet-n1").split()]
    victim = next(pid for pid in pids if rank_of(pid) == "1")
    os.kill(victim, signal.SIGKILL)
    assert job.wait("FAILED")["Restarts"] == "0"
    again = train(2, 1)
    again.wait()
    (step,) = again.resumed_at
    assert step in (5, 10)  # a periodic checkpoint: the job ran on until Slurm ended it
    again.run.assert_same_training(uninterrupted)


def rank_of(pid: int) -> str:
    """Rank of a train.py process, from its environment; empty for any other process."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # the process has ended
        return ""
    ranks = [v.split(b"=")[1].decode() for v in variables if v.startswith(b"SLURM_PROCID=")]
    return ranks[0] if ranks and b"train.py" in command else ""


def test_shards_of_an_array_are_those_of_one_task(cluster: Cluster, tmp_path: Path) -> None:
    names = [f"{i}.mp4" for i in range(12)]
    for i, name in enumerate(names):
        write_video(tmp_path / name, seed=i)
    (tmp_path / "list").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(names)))
    words = ("--dataset", "folder", "--videos", tmp_path, "--list", tmp_path / "list")
    words = (*words, "--split", "train", "--tar-samples", "3", "--out")
    array = ("--array=4-6", "--cpus-per-task=1", f"--output={tmp_path}/log-%a")
    job = cluster.run(
        "sbatch", "--parsable", *array, "slurm/shard.sh", *words, tmp_path / "array"
    ).strip()
    for task in (4, 5, 6):
        cluster.wait(f"{job}_{task}")
    cluster.run(sys.executable, "tools/shard.py", *words, tmp_path / "one", "--workers", 1)
    tars = sorted(path.name for path in (tmp_path / "one" / "train").glob("*.tar"))
    assert len(tars) == 4
    for name in (*tars, "manifest.json"):
        one, array_made = (tmp_path / kind / "train" / name for kind in ("one", "array"))
        assert one.read_bytes() == array_made.read_bytes(), name


def test_a_refusal_of_sbatch_is_reported_without_a_traceback(
    cluster: Cluster, options, tmp_path: Path
) -> None:
    words = (REPOSITORY / "slurm" / "submit.py", "k400", *options, "--out", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, *map(str, words), "--partition", "nowhere"],
        env=cluster.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    *reasons, last = done.stderr.splitlines()
    assert any("nowhere" in reason for reason in reasons)
    assert last.startswith("error: sbatch refused the job")
    assert "Traceback" not in done.stderr


def test_one_run_of_a_sweep_is_requeued(
    cluster: Cluster, options, uninterrupted: Run, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable, REPOSITORY / "slurm" / "submit.py", "k400", *map(str, options), *SHORT,
            "--nodes", "1", "--gpus-per-node", "1", "--out", tmp_path, "--sweep", "seed", "0", "1",
        ],
        env=cluster.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = re.findall(r"job (\d+_\d):", done.stdout)
    logs = [Path(path) for path in re.findall(r"tail -F (\S+)", done.stdout)]
    # Send the signal as soon as the task exists, most likely while it imports torch.
    cluster.until(lambda: f"{second}.1" in cluster.run("squeue", "-h", "-s", "-o", "%i"), second)
    # Slurm loses a signal to a task that it is still starting, so it is sent until it works.
    signal_job = ["scancel", "--signal=USR1", second]

    def is_requeued() -> bool:
        if cluster.info(second)["Restarts"] == "1":
            return True
        subprocess.run(signal_job, env=cluster.environment, capture_output=True, timeout=60)
        time.sleep(1)
        return False

    cluster.until(is_requeued, second)
    assert cluster.wait(first)["Restarts"] == "0"
    assert cluster.wait(second)["Restarts"] == "1"
    Run(tmp_path / "seed=0").assert_same_training(uninterrupted)
    other = [record["ids"] for record in Run(tmp_path / "seed=1").records]
    assert len(other) == 36
    assert other != [record["ids"] for record in uninterrupted.records[:36]]
    assert [log.read_text().count("(dsanet-k400) on") for log in logs] == [1, 2]
